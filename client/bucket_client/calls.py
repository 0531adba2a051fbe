"""One call of the server: a request that is sent again while that is safe and useful, then a reply or an error.

Repeated are requests without a reply and 408, 429, 502, 503, 504, with exponential back-off and jitter, and never
before ``Retry-After``. Every request of this client is safe to repeat: a submit carries an Idempotency-Key. Other 4xx
and 500 are not repeated: the same request gets the same reply.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from bucket_client.effects import Flow, NoReply, Reply, Request, Sleep
from bucket_client.errors import BucketError, BucketWarning, Invalid, ServerFault, Unavailable, error_of
from bucket_client.settings import ClientSettings

_REPEATED: Final = frozenset({408, 429, 502, 503, 504})
_NOT_MODIFIED: Final = 304
_SUCCESS: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 15.0
_REPEATS_MAX_S: Final = 60.0
OUTAGE_S: Final = 600.0
"""A wait goes on through an outage of the server for so long, unless its own timeout ends it before."""
_PACKAGE: Final = str(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is repeated: at most ``retries`` times (None: any number), no pause ends after ``due_by``."""

    retries: int | None
    due_by: float

    @classmethod
    def for_one_call(cls, settings: ClientSettings) -> Patience:
        """Return the patience of a call that somebody waits for: the retries of the settings, within a minute."""
        return cls(settings.retries, settings.clock() + settings.timeout_s + _REPEATS_MAX_S)

    @classmethod
    def for_a_wait(cls, settings: ClientSettings, due_by: float | None = None) -> Patience:
        """Return the patience of a call inside a wait, which outlives a restart of the server."""
        outage_over_at = settings.clock() + OUTAGE_S
        return cls(None, outage_over_at if due_by is None else min(due_by, outage_over_at))


def call(settings: ClientSettings, request: Request, patience: Patience | None = None) -> Flow[Reply]:
    """Send a request until it has a reply that counts, and return that: 2xx or 304.

    Raises the :class:`BucketError` of the reply, or of the last one if the patience is over.
    """
    patience = patience or Patience.for_one_call(settings)
    attempt = 0
    while True:
        outcome: Reply | NoReply = yield request
        if isinstance(outcome, Reply) and (outcome.status == _NOT_MODIFIED or outcome.status in _SUCCESS):
            return outcome
        if isinstance(outcome, Reply) and outcome.status not in _REPEATED:
            raise _refusal_of(outcome)
        error = _unavailable(settings, outcome) if isinstance(outcome, NoReply) else error_of(outcome)
        pause_s = pause_before_repeat(settings, attempt, error.retry_after_s)
        is_last = patience.retries is not None and attempt >= patience.retries
        if is_last or settings.clock() + pause_s > patience.due_by:
            raise error
        attempt += 1
        yield Sleep(pause_s)


def call_json(settings: ClientSettings, request: Request, patience: Patience | None = None) -> Flow[dict[str, Any]]:
    """Send a request as :func:`call` does and return its reply's JSON object, whose warnings are raised."""
    reply = yield from call(settings, request, patience)
    body = object_of(reply)
    warn_of(body)
    return body


def object_of(reply: Reply) -> dict[str, Any]:
    """Return the JSON object in a reply. Raises ServerFault for anything else."""
    body = reply.json()
    if not isinstance(body, dict):
        raise ServerFault(f"the server replied {reply.status} with JSON that is no object", status=reply.status)
    return body


def pause_before_repeat(settings: ClientSettings, attempt: int, retry_after_s: float | None) -> float:
    """Return the pause before the repeat number ``attempt`` (from 0): doubled each time, half of it by chance."""
    longest_s: float = min(_BACKOFF_S * 2.0 ** min(attempt, 10), _BACKOFF_MAX_S)
    backoff_s = longest_s * (1 + settings.chance()) / 2
    return max(backoff_s, retry_after_s or 0.0)


def warn_of(body: Mapping[str, Any]) -> None:
    """Raise the warnings of a reply as Python warnings, at the line outside of this package that called it."""
    for text in body.get("warnings") or ():
        warnings.warn(str(text), BucketWarning, stacklevel=_depth_of_caller())


def encode(body: Any) -> bytes:
    """Return the JSON of a body. Raises Invalid for what JSON cannot express, such as NaN or a set."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"the request cannot be written as JSON: {error}") from error


def post(path: str, body: Any = None, **headers: str) -> Request:
    """Return a POST of ``body`` as JSON; ``Idempotency_Key="a"`` is a header."""
    return Request("POST", path, body=None if body is None else encode(body), headers=header_names(headers))


def header_names(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers whose names are written with ``_``, as in Python, with their real names."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


def segment(value: str) -> str:
    """Return a value as one percent-encoded segment of a path. Raises Invalid if it is none."""
    if not value or value in {".", ".."}:
        raise Invalid(f"{value!r} is neither a name nor an id")
    return quote(value, safe="")


def _refusal_of(reply: Reply) -> BucketError:
    location = reply.headers.get("location")
    if reply.status in _REDIRECT:
        message = f"the server replied {reply.status} and refers to {location}: correct the address of Bucket"
        return ServerFault(message, status=reply.status)
    return error_of(reply)


def _unavailable(settings: ClientSettings, outcome: NoReply) -> Unavailable:
    return Unavailable(f"Bucket did not reply at {settings.url}: {outcome.reason}")


def _depth_of_caller() -> int:
    """Return the ``stacklevel`` of the first frame outside of this package."""
    depth, frame = 1, sys._getframe(1)  # noqa: SLF001 -- what warnings.warn itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        depth, frame = depth + 1, frame.f_back
    return depth
