"""Run a basket, save the result to a file and send it on to Core; the failure of one does not stop the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bucket_client.connectors.bucket_files import save_to_bucket
from bucket_client.connectors.connector_flows import AwaitedWork, ConnectorFlow, Work, drive, drive_async
from bucket_client.connectors.connector_settings import ConnectorSettings
from bucket_client.connectors.core_delivery import CoreRetries, send
from bucket_client.connectors.core_http import AsyncCoreClient, CoreClient

T = TypeVar("T")
logger = logging.getLogger("bucket_client.connectors")


class FinishedRun(Protocol):
    """What a client returns of a run that has ended."""

    @property
    def execution_id(self) -> str:
        """The id of the run."""

    @property
    def status(self) -> str:
        """How the run ended, for example ``completed``."""

    @property
    def result(self) -> Any:
        """The result; None if the run failed."""

    @property
    def error(self) -> Any:
        """The error; None if the run completed."""


class RunsBaskets(Protocol):
    """A client of Bucket."""

    def run_and_wait(
        self,
        basket: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 -- the name in Bucket's API
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        check: bool = True,
    ) -> FinishedRun:
        """Submit a run and return it when it has ended; with ``check``, raise if it failed."""


class RunsBasketsAsync(Protocol):
    """An async client of Bucket."""

    async def run_and_wait(
        self,
        basket: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 -- the name in Bucket's API
        *,
        timeout: float | None = None,  # noqa: ASYNC109 -- the client polls with it, and does not only wait
        idempotency_key: str | None = None,
        check: bool = True,
    ) -> FinishedRun:
        """Submit a run and return it when it has ended; with ``check``, raise if it failed."""


@dataclass(frozen=True, slots=True)
class ForwardReport:
    """What worked and what did not; if ``run_error`` is set, there was nothing to save and to send.

    A run that failed is a run that ended: its ``status`` says so, and it is saved and sent too.
    """

    execution_id: str | None = None
    status: str | None = None
    saved_to: Path | None = None
    core_reply: Any = None
    run_error: Exception | None = None
    save_error: Exception | None = None
    send_error: Exception | None = None

    @property
    def ran(self) -> bool:
        """Whether the run ended."""
        return self.run_error is None

    @property
    def saved(self) -> bool:
        """Whether the file was written."""
        return self.ran and self.save_error is None

    @property
    def sent(self) -> bool:
        """Whether Core took the payload."""
        return self.ran and self.send_error is None

    @property
    def is_complete(self) -> bool:
        """Whether the run ended, was saved and was sent."""
        return self.saved and self.sent


def run_and_forward(
    client: RunsBaskets,
    basket: str,
    input: Mapping[str, Any] | None = None,  # noqa: A002 -- the name in Bucket's API
    *,
    timeout: float | None = None,
    idempotency_key: str | None = None,
    filename: str | None = None,
    max_retries: int = 3,
    backoff: float = 1,
    settings: ConnectorSettings | None = None,
) -> ForwardReport:
    """Run a basket, wait for its end, save it and send it to Core; return what worked, and the errors.

    The payload is an object with ``execution_id``, ``basket``, ``status``, ``result`` and ``error``. The file is
    ``<execution_id>.json`` by default. It is written first, since the send may take long. The ``Idempotency-Key`` for
    Core is the id of the run, so a run that is forwarded twice is taken once. Failures are logged, not raised.

    ``timeout`` and ``idempotency_key`` are those of the run. Raises ValueError for wrong settings, before the run.
    """
    settings, retries = settings or ConnectorSettings.from_environment(), CoreRetries(max_retries, backoff)
    run = partial(client.run_and_wait, basket, input, timeout=timeout, idempotency_key=idempotency_key, check=False)
    with CoreClient(settings) as core:
        return drive(_forward(Work(run), basket, filename, retries, settings), core.perform)


async def run_and_forward_async(
    client: RunsBasketsAsync,
    basket: str,
    input: Mapping[str, Any] | None = None,  # noqa: A002 -- the name in Bucket's API
    *,
    timeout: float | None = None,  # noqa: ASYNC109 -- the client polls with it, and does not only wait
    idempotency_key: str | None = None,
    filename: str | None = None,
    max_retries: int = 3,
    backoff: float = 1,
    settings: ConnectorSettings | None = None,
) -> ForwardReport:
    """Run a basket, wait for its end, save it and send it to Core: the async form of :func:`run_and_forward`."""
    settings, retries = settings or ConnectorSettings.from_environment(), CoreRetries(max_retries, backoff)
    run = partial(client.run_and_wait, basket, input, timeout=timeout, idempotency_key=idempotency_key, check=False)
    async with AsyncCoreClient(settings) as core:
        return await drive_async(_forward(AwaitedWork(run), basket, filename, retries, settings), core.perform)


def _forward(
    run: Work | AwaitedWork, basket: str, filename: str | None, retries: CoreRetries, settings: ConnectorSettings
) -> ConnectorFlow[ForwardReport]:
    ended, run_error = yield from _attempt(f"run of {basket}", _effect(run))
    if run_error is not None or ended is None:
        return ForwardReport(run_error=run_error)
    run_id = ended.execution_id
    payload = {
        "execution_id": run_id,
        "basket": basket,
        "status": ended.status,
        "result": ended.result,
        "error": ended.error,
    }
    filename = f"{run_id}.json" if filename is None else filename
    save = Work(partial(save_to_bucket, payload, filename, settings=settings))
    saved_to, save_error = yield from _attempt(f"save of {run_id}", _effect(save))
    reply, send_error = yield from _attempt(f"send of {run_id} to Core", send(payload, retries, settings, run_id))
    return ForwardReport(run_id, ended.status, saved_to, reply, None, save_error, send_error)


def _effect(effect: Work | AwaitedWork) -> ConnectorFlow[Any]:
    return (yield effect)


def _attempt(what: str, flow: ConnectorFlow[T]) -> ConnectorFlow[tuple[T | None, Exception | None]]:
    """Return the result of a flow, or its error, which is logged."""
    try:
        return (yield from flow), None
    except Exception as error:  # noqa: BLE001 -- the other parts go on
        logger.error("%s failed: %s: %s", what, type(error).__name__, error)  # noqa: TRY400 -- the caller has the error
        return None, error
