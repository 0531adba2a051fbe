"""One call of the server: a request that is sent again while that is safe and useful, then a reply or an error.

Repeated are requests without a reply and 408, 429, 502, 503, 504, with exponential back-off and jitter, and never
before ``Retry-After``. Every request of this client is safe to repeat: a submit carries an Idempotency-Key. Other 4xx
are not repeated: the same request gets the same reply. A 500, a reply that is not JSON, or a 503 ``agent_unavailable``,
which a person has to mend, is repeated only in a wait.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from bucket_client.effects import Flow, NoReply, Reply, Request, Sleep
from bucket_client.errors import BucketError, BucketWarning, Invalid, ServerFault, Timeout, Unavailable, error_of
from bucket_client.execution import Execution
from bucket_client.settings import ClientSettings

_log: Final = logging.getLogger("bucket_client")
_NOT_MODIFIED: Final = 304
_SUCCESS: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 15.0
_REPEATS_MAX_S: Final = 60.0
AGENT_UNAVAILABLE: Final = "agent_unavailable"
OUTAGE_S: Final = 600.0
"""A wait goes on through an outage of the server for so long, unless its own timeout ends it before."""
_PACKAGE: Final = f"{Path(__file__).parent}{os.sep}"
PAUSE_MIN_S: Final = 0.25
_FAULTS_MAX: Final = 3
_LIMIT_MIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is repeated: at most ``retries`` times (None: any number), and until ``due_by``.

    With ``is_wait`` somebody waits for a run, not for this call: a fault of the server (500, a reply that is no JSON)
    is repeated a few times too. If ``ends_wait``, the wait is over at ``due_by``, which is a Timeout.
    """

    retries: int | None
    due_by: float
    is_wait: bool = False
    ends_wait: bool = False

    @classmethod
    def for_one_call(cls, settings: ClientSettings) -> Patience:
        """Return the patience of a call that somebody waits for: the retries of the settings, within a minute."""
        return cls(settings.retries, settings.clock() + settings.timeout_s + _REPEATS_MAX_S)

    @classmethod
    def for_a_wait(cls, settings: ClientSettings, due_by: float | None = None) -> Patience:
        """Return the patience of a call inside a wait until ``due_by``, which outlives a restart of the server."""
        outage_over_at = settings.clock() + OUTAGE_S
        ends_wait = due_by is not None and due_by <= outage_over_at
        return cls(None, due_by if due_by is not None and ends_wait else outage_over_at, True, ends_wait)

    def may_repeat(self, error: BucketError, faults: int) -> bool:
        """Return whether a request that ended with ``error`` may be sent again, after so many faults of the server."""
        if self.retries is not None and error.attempts > self.retries:
            return False
        if error.error_code == AGENT_UNAVAILABLE and not self.is_wait:
            return False
        return isinstance(error, Unavailable) or (self.is_wait and faults <= _FAULTS_MAX)


def call(settings: ClientSettings, request: Request, patience: Patience | None = None) -> Flow[Reply]:
    """Send a request until it has a reply that counts, and return that: 2xx with JSON, or 304.

    Raises the :class:`BucketError` of the reply, or of the last one if the patience is over.
    """
    patience = patience or Patience.for_one_call(settings)
    attempts = faults = 0
    while True:
        left_s = patience.due_by - settings.clock()
        limit_s = max(left_s, _LIMIT_MIN_S) if patience.ends_wait else math.inf
        outcome: Reply | NoReply = yield replace(request, limit_s=limit_s)
        judged = _judge(settings, outcome)
        if isinstance(judged, Reply):
            return judged
        error = judged
        attempts, faults = attempts + 1, faults + isinstance(error, ServerFault)
        error.attempts = attempts
        is_refused = not isinstance(error, Unavailable | ServerFault) or error.status in _REDIRECT
        if is_refused or not patience.may_repeat(error, faults):
            raise error
        pause_s = pause_before_repeat(settings, attempts - 1, error.retry_after_s)
        left_s = patience.due_by - settings.clock()
        if pause_s > left_s and patience.ends_wait and (error.retry_after_s or 0.0) <= left_s:
            pause_s = left_s  # the last try falls on the end of the wait
        if pause_s > left_s or left_s <= 0:
            raise _timeout_of(error) if patience.ends_wait else error
        _log.info("%s %s is sent again in %.1f s: %s", request.method, request.path, pause_s, error.message)
        yield Sleep(pause_s)


def call_json(
    settings: ClientSettings, request: Request, patience: Patience | None = None, *, needs: Sequence[str] = ()
) -> Flow[dict[str, Any]]:
    """Send a request as :func:`call` does, issue the warnings of its reply, and return its JSON object.

    Raises ServerFault if that lacks one of the members that it ``needs``.
    """
    reply = yield from call(settings, request, patience)
    body = object_of(reply, needs)
    warn_of(body)
    return body


def object_of(reply: Reply, needs: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON object in a reply. Raises ServerFault for anything else, or if one of its members is missing."""
    body = reply.json()
    if not isinstance(body, dict):
        raise ServerFault(f"the server replied {reply.status} with JSON that is no object", status=reply.status)
    if missing := [name for name in needs if name not in body]:
        raise ServerFault(f"the reply lacks {', '.join(missing)}: it is none of Bucket's", status=reply.status)
    return body


def hinted_pause_s(poll_after_ms: float | None, otherwise_s: float = 1.0) -> float:
    """Return the pause that a hint asks for, in seconds; never less than the least that Bucket itself asks for."""
    return otherwise_s if poll_after_ms is None else max(poll_after_ms / 1000, PAUSE_MIN_S)


def pause_before_repeat(settings: ClientSettings, attempt: int, retry_after_s: float | None) -> float:
    """Return the pause before the repeat number ``attempt`` (from 0): doubled each time, half of it by chance."""
    longest_s: float = min(_BACKOFF_S * 2.0 ** min(attempt, 10), _BACKOFF_MAX_S)
    backoff_s = longest_s * (1 + settings.chance()) / 2
    return max(backoff_s, retry_after_s or 0.0)


def warn_of(body: Mapping[str, Any], execution: Execution | None = None) -> None:
    """Issue the warnings of a reply as Python warnings, at the line outside of this package that called it."""
    for text in body.get("warnings") or ():
        warning = BucketWarning(str(text))
        warning.execution = execution
        warnings.warn(warning, stacklevel=_depth_of_caller())


def encode(body: Any) -> bytes:
    """Return the JSON of a body. Raises Invalid for what JSON cannot express, such as NaN or a set."""
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"the request cannot be written as JSON: {error}") from error


def post(path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Request:
    """Return a POST of ``body`` as JSON."""
    return Request("POST", path, body=None if body is None else encode(body), headers=headers or {})


def segment(value: str) -> str:
    """Return a value as one percent-encoded segment of a path. Raises Invalid if it is none."""
    try:
        encoded = quote(value, safe="")
    except (TypeError, UnicodeError):
        encoded = ""
    if encoded in {"", ".", ".."}:
        raise Invalid(f"{value!r} is neither a name nor an id")
    return encoded


def _judge(settings: ClientSettings, outcome: Reply | NoReply) -> Reply | BucketError:
    """Return a reply that counts, or the error for any other outcome."""
    if isinstance(outcome, NoReply):
        return Unavailable(f"Bucket did not reply at {settings.url}: {outcome.reason}")
    if outcome.status == _NOT_MODIFIED:
        return outcome
    if outcome.status in _SUCCESS:
        try:
            outcome.json()
        except ServerFault as fault:
            return fault
        return outcome
    if outcome.status in _REDIRECT:
        location = outcome.headers.get("location")
        message = f"the server replied {outcome.status} and refers to {location}: correct the address of Bucket"
        return ServerFault(message, status=outcome.status)
    return error_of(outcome)


def _timeout_of(error: BucketError) -> Timeout:
    timeout = Timeout(f"not done in time; the last try: {error.message}", status=error.status)
    timeout.__cause__ = error
    return timeout


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _depth_of_caller() -> int:
    """Return the ``stacklevel`` of the first frame outside of this package."""
    depth, frame = 1, sys._getframe(1)  # noqa: SLF001 -- what warnings.warn itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        depth, frame = depth + 1, frame.f_back
    return depth
