"""Ids of traces and spans (W3C trace context), derived from what is stored, so that no process must tell another.

The span of attempt 2 of a step has the same id whichever process computes it. So a rescue links to the attempt of a
worker that was killed, and the reconciler can export the span of that attempt itself.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from shared.ids import TRACEPARENT_PATTERN, new_token

_SAMPLED: Final = 1
_INVALID_VERSION: Final = 0xFF
_SPAN_BYTES: Final = 8
_TRACE_BYTES: Final = 16


class TraceContext(NamedTuple):
    """A span's place: the ids of its trace and of itself, and whether it is exported.

    A named tuple, as each span needs several: a frozen dataclass takes three times as long to make.
    """

    trace_id: int
    span_id: int
    is_sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The header that makes this span the parent of what a callee does."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields of the log lines that belong to this span."""
        return {"trace_id": f"{self.trace_id:032x}", "span_id": f"{self.span_id:016x}"}

    def child(self, span_id: int) -> TraceContext:
        """Return the context of another span of the same trace."""
        return TraceContext(self.trace_id, span_id, self.is_sampled)


def parse_traceparent(header: str | None) -> TraceContext | None:
    """Return the context that a W3C ``traceparent`` names; None if there is none or it is invalid."""
    if header is None or TRACEPARENT_PATTERN.fullmatch(header) is None:
        return None
    version, trace_id, span_id, flags = (int(part, 16) for part in header.split("-")[:4])
    if version == _INVALID_VERSION or not trace_id or not span_id:
        return None
    return TraceContext(trace_id, span_id, bool(flags & _SAMPLED))


def new_span_id() -> int:
    """Return a random span id."""
    return int(new_token(), 16) or 1


def new_trace_id() -> int:
    """Return a random trace id."""
    return int(new_token() + new_token(), 16) or 1


def derived_trace_id(execution_id: str) -> int:
    """Return the trace id of a run that was stored without a ``traceparent``."""
    return _digest(execution_id, _TRACE_BYTES)


def run_span_id(execution_id: str) -> int:
    """Return the id of the span of a whole run."""
    return _digest(execution_id, _SPAN_BYTES)


def attempt_span_id(execution_id: str, step_id: str, claim: int) -> int:
    """Return the id of the span of one attempt of a step."""
    return _digest(f"{execution_id}/{step_id}/{claim}", _SPAN_BYTES)


def wait_span_id(execution_id: str, step_id: str, claim: int) -> int:
    """Return the id of the span of the wait in the queue before an attempt."""
    return _digest(f"{execution_id}/{step_id}/{claim}/wait", _SPAN_BYTES)


@lru_cache(maxsize=1_024)  # an id is needed by its own span, by those inside it, and by log lines
def _digest(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest(), "big") or 1
