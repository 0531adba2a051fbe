"""The delivery of one payload to Core: what a reply means, when to repeat the call, and what happens at the end.

A call is repeated if there was no complete reply, after 408, 425, 429 and after each 5xx. Any other reply is final. So
is a reply of 2xx that is not JSON: Core may have taken the payload, and a repeat may get the same reply.
"""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from bucket_client.connectors.connector_errors import CoreSendFailed
from bucket_client.connectors.connector_flows import ConnectorFlow, CoreCall, CoreReply, NoCoreReply, Pause, Work
from bucket_client.connectors.connector_metrics import REGISTRY
from bucket_client.connectors.connector_settings import ConnectorSettings, is_header_value
from bucket_client.connectors.failure_log import FailureLog
from bucket_client.connectors.json_text import decode_json, encode_payload

RETRY_AFTER_MAX_S: Final = 30.0
BACKOFF_MAX_S: Final = 60.0
_REPEATED_4XX: Final = frozenset({408, 425, 429})
_WITH_RETRY_AFTER: Final = frozenset({429, 503})
_NUMBER: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)
_EXCERPT_MAX: Final = 200
_KEY_LENGTH_MAX: Final = 255

logger = logging.getLogger("bucket_client.connectors")


@dataclass(frozen=True, slots=True)
class CoreRetries:
    """How often Core is called for one payload, and the pauses: ``backoff_s``, then twice as long each time.

    A pause is at most 60 s, or ``backoff_s`` if that is more. Raises ValueError for numbers that make no sense.
    """

    max_calls: int = 3
    backoff_s: float = 1

    def __post_init__(self) -> None:
        if not isinstance(self.max_calls, int) or self.max_calls < 1:
            raise ValueError(f"max_retries is the number of calls in all, 1 or more, not {self.max_calls!r}")
        if not 0 <= self.backoff_s < math.inf:
            raise ValueError(f"backoff must be 0 seconds or more, not {self.backoff_s!r}")

    def pause_after(self, calls: int, retry_after_s: float) -> float:
        """Return the seconds to wait after call number ``calls``; at least so long as Core asks for."""
        doublings = min(calls - 1, 30)  # a larger power is no float any more, long after the maximum
        backoff_s: float = min(self.backoff_s * 2.0**doublings, max(self.backoff_s, BACKOFF_MAX_S))
        return max(backoff_s, retry_after_s)


@dataclass(frozen=True, slots=True)
class Delivered:
    """Core took the payload; ``reply`` is its parsed reply, or None if that is empty."""

    reply: Any


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Core did not take the payload, as far as is known; if ``is_final``, the call is not repeated."""

    reason: str
    status: int | None = None
    is_final: bool = False
    retry_after_s: float = 0.0
    calls: int = 1


def judge(outcome: CoreReply | NoCoreReply, settings: ConnectorSettings) -> Delivered | Undelivered:
    """Return what the outcome of one call means."""
    if isinstance(outcome, NoCoreReply):
        return Undelivered(settings.redact(outcome.reason))
    status, excerpt = outcome.status, _excerpt(settings.redact(outcome.body.decode(errors="replace")))
    if status < 300:  # noqa: PLR2004 -- all 2xx
        return _judge_success(outcome, excerpt)
    if status < 400:  # noqa: PLR2004 -- all 3xx
        target = _excerpt(settings.redact(outcome.location))
        reason = f"{status} redirects to {target!r}, which is not followed; set BHIV_CORE_URL to the final address"
        return Undelivered(reason, status, is_final=True)
    is_final = status < 500 and status not in _REPEATED_4XX  # noqa: PLR2004 -- the 4xx
    asked = outcome.retry_after.strip() if status in _WITH_RETRY_AFTER else ""
    retry_after_s = min(float(asked), RETRY_AFTER_MAX_S) if _NUMBER.fullmatch(asked) else 0.0
    return Undelivered(f"Core replied {status}: {excerpt}", status, is_final, retry_after_s)


def deliver(
    call: CoreCall, retries: CoreRetries, settings: ConnectorSettings
) -> ConnectorFlow[Delivered | Undelivered]:
    """Call Core until it takes the payload, refuses it for good, or has been called ``retries.max_calls`` times."""
    calls = 0
    while True:
        calls += 1
        outcome: CoreReply | NoCoreReply = yield call
        status = outcome.status if isinstance(outcome, CoreReply) else None
        REGISTRY.observe_call(status, outcome.duration_s)
        verdict = judge(outcome, settings)
        if isinstance(verdict, Delivered):
            return verdict
        if verdict.is_final or calls == retries.max_calls:
            return replace(verdict, calls=calls)
        pause_s = retries.pause_after(calls, verdict.retry_after_s)
        logger.info("call %d of %d to Core failed, next in %g s: %s", calls, retries.max_calls, pause_s, verdict.reason)
        yield Pause(pause_s)
        REGISTRY.count("retries")


def send(
    payload: Any, retries: CoreRetries, settings: ConnectorSettings, idempotency_key: str | None = None
) -> ConnectorFlow[Any]:
    """Deliver a payload and return the reply; log it and raise CoreSendFailed if that fails.

    Raises PayloadNotJson, and ValueError for a key that cannot be sent, before anything is sent or logged.
    """
    key = uuid.uuid4().hex if idempotency_key is None else idempotency_key
    if not is_header_value(key) or len(key) > _KEY_LENGTH_MAX:
        raise ValueError("idempotency_key must be 1 to 255 printable ASCII characters without spaces")
    body = encode_payload(payload)
    verdict = yield from deliver(CoreCall(body, headers_of(key)), retries, settings)
    REGISTRY.count("sends", "sent" if isinstance(verdict, Delivered) else "failed")
    if isinstance(verdict, Delivered):
        return verdict.reply
    log = FailureLog(settings.failed_log)
    details = {"url": settings.public_url, "calls": verdict.calls, "error": verdict.reason}
    try:
        yield Work(partial(log.append, body, key, details))
    except OSError as error:
        REGISTRY.count("log_errors")
        raise _failure(verdict, settings, key, f"and it is NOT in the failure log: {error}", None) from error
    raise _failure(verdict, settings, key, f"the payload is in {settings.failed_log}", log)


def headers_of(idempotency_key: str) -> Mapping[str, str]:
    """Return the headers of a call: with this key, Core can detect a payload that it has taken already."""
    return {"Idempotency-Key": idempotency_key}


def _failure(
    verdict: Undelivered, settings: ConnectorSettings, key: str, where: str, log: FailureLog | None
) -> CoreSendFailed:
    count = "1 call" if verdict.calls == 1 else f"{verdict.calls} calls"
    return CoreSendFailed(
        f"Core at {settings.public_url} did not take the payload ({count}): {verdict.reason}; {where}",
        calls=verdict.calls,
        status=verdict.status,
        idempotency_key=key,
        logged_to=settings.failed_log if log else None,
    )


def _judge_success(reply: CoreReply, excerpt: str) -> Delivered | Undelivered:
    """Return the parsed body of a 2xx; a body that is not JSON is rather a proxy's page than a reply of Core."""
    if not reply.body.strip():
        return Delivered(None)
    if reply.is_cut:
        flaw = "longer than 1 MiB"
    else:
        try:
            return Delivered(decode_json(reply.body))
        except ValueError:
            flaw = "not JSON"
    reason = f"Core replied {reply.status}, but the body is {flaw}, so it may have taken the payload: {excerpt}"
    return Undelivered(reason, reply.status, is_final=True)


def _excerpt(text: str) -> str:
    """Return the beginning of a text from outside on one line, without control characters."""
    line = " ".join(text[: _EXCERPT_MAX * 4].split())
    return "".join(character for character in line if character.isprintable())[:_EXCERPT_MAX] or "(empty)"
