"""Send payloads to Core: one or many, sync or async; what Core does not take goes to the failure log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bucket_client.connectors.connector_flows import ConnectorFlow, drive, drive_async
from bucket_client.connectors.connector_settings import ConnectorSettings
from bucket_client.connectors.core_delivery import CoreRetries, send
from bucket_client.connectors.core_http import AsyncCoreClient, CoreClient


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What became of one payload of many: the reply of Core, or the error."""

    reply: Any = None
    error: Exception | None = None

    @property
    def sent(self) -> bool:
        """Whether Core took the payload."""
        return self.error is None


def send_to_core(
    payload: Any,
    max_retries: int = 3,
    backoff: float = 1,
    *,
    idempotency_key: str | None = None,
    settings: ConnectorSettings | None = None,
) -> Any:
    """POST a payload as JSON to Core and return the parsed reply; None if the reply is empty.

    ``max_retries`` is the number of calls in all, ``backoff`` the first pause in seconds; it doubles each time. A call
    takes 5 s at most. A call is repeated if there was no complete reply, after 408, 425, 429 and after each 5xx. Other
    replies of 4xx and redirects fail at once. So does a reply of 2xx that is not JSON: it is logged like each failure,
    since it may be the page of a proxy, but not repeated, since Core may have taken the payload.

    All calls of a payload have one ``Idempotency-Key``, in a later ``resend_failed()`` too; a new one by default.

    Raises CoreSendFailed after the payload is in the failure log, PayloadNotJson before anything is sent, and
    ValueError for wrong arguments or settings. A send that is interrupted (Ctrl-C, cancelled task) is not logged.
    """
    settings = settings or ConnectorSettings.from_environment()
    flow = send(payload, CoreRetries(max_retries, backoff), settings, idempotency_key)
    with CoreClient(settings) as core:
        return drive(flow, core.perform)


async def send_to_core_async(
    payload: Any,
    max_retries: int = 3,
    backoff: float = 1,
    *,
    idempotency_key: str | None = None,
    settings: ConnectorSettings | None = None,
) -> Any:
    """POST a payload as JSON to Core and return the parsed reply: the async form of :func:`send_to_core`."""
    settings = settings or ConnectorSettings.from_environment()
    flow = send(payload, CoreRetries(max_retries, backoff), settings, idempotency_key)
    async with AsyncCoreClient(settings) as core:
        return await drive_async(flow, core.perform)


def send_many_to_core(
    payloads: Iterable[Any],
    concurrency: int = 8,
    *,
    max_retries: int = 3,
    backoff: float = 1,
    settings: ConnectorSettings | None = None,
) -> list[SendOutcome]:
    """Send payloads to Core, ``concurrency`` at a time, and return their outcomes in order; none stops the others.

    Raises ValueError for wrong arguments or settings, before anything is sent.
    """
    settings, retries = settings or ConnectorSettings.from_environment(), CoreRetries(max_retries, backoff)
    _check(concurrency)
    flows = [_isolated(send(payload, retries, settings)) for payload in payloads]
    with CoreClient(settings) as core, ThreadPoolExecutor(concurrency, "send_many_to_core") as pool:
        sends = [pool.submit(drive, flow, core.perform) for flow in flows]
        try:
            return [each.result() for each in sends]
        except BaseException:  # Ctrl-C: do not send all the others first
            pool.shutdown(wait=False, cancel_futures=True)
            raise


async def send_many_to_core_async(
    payloads: Iterable[Any],
    concurrency: int = 8,
    *,
    max_retries: int = 3,
    backoff: float = 1,
    settings: ConnectorSettings | None = None,
) -> list[SendOutcome]:
    """Send payloads to Core, ``concurrency`` at a time: the async form of :func:`send_many_to_core`."""
    settings, retries = settings or ConnectorSettings.from_environment(), CoreRetries(max_retries, backoff)
    _check(concurrency)
    flows = [_isolated(send(payload, retries, settings)) for payload in payloads]
    outcomes: dict[int, SendOutcome] = {}
    numbered = iter(enumerate(flows))

    async def send_in_turn() -> None:
        for index, flow in numbered:
            outcomes[index] = await drive_async(flow, core.perform)

    async with AsyncCoreClient(settings) as core, asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(flows))):
            group.create_task(send_in_turn())
    return [outcomes[index] for index in range(len(flows))]


def _isolated(flow: ConnectorFlow[Any]) -> ConnectorFlow[SendOutcome]:
    """Return the outcome of a send, its error too."""
    try:
        reply = yield from flow
    except Exception as error:  # noqa: BLE001 -- one payload's error is its outcome
        return SendOutcome(error=error)
    return SendOutcome(reply)


def _check(concurrency: int) -> None:
    if concurrency < 1:
        raise ValueError(f"concurrency must be 1 or more, not {concurrency!r}")
