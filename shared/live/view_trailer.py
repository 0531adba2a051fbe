"""View trailer (metadata footer): the hidden end of a rendered view, from which the next poll's hints are computed.

It is cut off without parsing the view, and no client sees it. A view that a process of another release rendered may
have no ``timing``, or one with unknown fields: then the hints are those of a run about which nothing is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

import orjson

from shared.domain.execution import Execution, Step
from shared.domain.status import ExecutionStatus, StepStatus
from shared.live.duration_stats import run_samples_key

TRAILER_BYTES_MAX: Final = 500

_TIMING: Final = b',"timing":'
_WAIT: Final = b',"resting":'
_NO_EXPIRY: Final = b',"expires_ms":null}'  # left out, because the previous release does not know the field
# Anchored at the end: data of callers may look like a trailer, but something always comes after it.
_TRAILER: Final = re.compile(rb',"timing":(\{[^{}]*\})(?:,"resting":(\{[^{}]*\}))?\Z|,"resting":(\{[^{}]*\})\Z')


@dataclass(frozen=True, slots=True)
class WaitState:
    """Why no step of a run is running: ``queue``, ``retry`` or ``schedule``; ``until_ms`` (epoch ms) if delayed."""

    reason: str
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RunTiming:
    """The data from which the remaining time of a run is estimated; times are epoch ms.

    ``runs`` is the key of the duration samples of its runs. ``agent`` is the agent of the step that is running or
    offered. ``again`` is true if a step is at a later attempt or waits for one. In any case the run is over soon after
    ``expires_ms``.
    """

    runs: str
    agent: str | None = None
    started_ms: int | None = None
    step_ms: int | None = None
    again: bool = False
    cancel_ms: int | None = None
    offered_ms: int | None = None
    queue: str | None = None
    priority: int = 0
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Trailer:
    """The trailer of a view: data for the hints of the next poll, never shown; empty if the run is over."""

    wait_state: WaitState | None = None
    timing: RunTiming | None = None


EMPTY_TRAILER: Final = Trailer()
_Part = TypeVar("_Part", WaitState, RunTiming)


def split_trailer(view: bytes) -> tuple[bytes, Trailer]:
    """Split a rendered view into the part that clients may see and the trailer at its end."""
    search_from = max(len(view) - TRAILER_BYTES_MAX, 0)
    if view.find(_TIMING, search_from) < 0 and view.find(_WAIT, search_from) < 0:
        return view, EMPTY_TRAILER
    match = _TRAILER.search(view, search_from)
    if match is None:
        return view, EMPTY_TRAILER
    timing, wait_state = match[1], match[2] or match[3]
    return view[: match.start()], Trailer(_decode_part(WaitState, wait_state), _decode_part(RunTiming, timing))


def _decode_part(kind: type[_Part], encoded: bytes | None) -> _Part | None:
    """Decode a part of a trailer; None if it is missing, or a newer release has written unknown fields."""
    try:
        return None if encoded is None else kind(**orjson.loads(encoded))
    except TypeError:
        return None


def trailer_of(execution: Execution) -> Trailer:
    """Build the trailer of a run in its present state."""
    if execution.is_done:
        return EMPTY_TRAILER
    running = next((step for step in execution.steps.values() if step.status is StepStatus.RUNNING), None)
    step = running or _first_ready(execution)
    wait_state = None if step is None or running is not None else _wait_state_of(execution, step)
    return Trailer(wait_state, _timing_of(execution, step))


def encode_trailer(trailer: Trailer) -> bytes:
    """Encode a trailer as the bytes at the end of a rendered view."""
    timing = b"" if trailer.timing is None else _TIMING + orjson.dumps(trailer.timing).replace(_NO_EXPIRY, b"}")
    return timing + (b"" if trailer.wait_state is None else _WAIT + orjson.dumps(trailer.wait_state))


def _first_ready(execution: Execution) -> Step | None:
    """Return the ready step with the earliest due time, offered steps before delayed steps; None if none is ready."""
    ready = [step for step in execution.steps.values() if step.status is StepStatus.READY and step.due_by is not None]
    return min(ready, key=lambda step: (step.is_delayed, step.due_by)) if ready else None


def _wait_state_of(execution: Execution, first: Step) -> WaitState:
    if not first.is_delayed:
        return WaitState("queue")
    reason = "retry" if first.claims else "queue"  # before its first claim only a script of the simulator delays a step
    if execution.status is ExecutionStatus.SCHEDULED:
        reason = "schedule"
    return WaitState(reason, _ms(first.due_by))


def _timing_of(execution: Execution, step: Step | None) -> RunTiming:
    timing = RunTiming(
        runs=run_samples_key(execution),
        agent=None if step is None else step.agent,
        started_ms=_ms(execution.started_at),
        step_ms=None if step is None else _ms(step.started_at),
        again=any(map(_has_earlier_attempt, execution.steps.values())),
        cancel_ms=None if execution.cancel is None else _ms(execution.cancel.requested_at),
        expires_ms=_ms(execution.expires_at),
    )
    if step is None or step.status is not StepStatus.READY or step.offered_at is None:
        return timing
    queue = execution.basket.step(step.id).queue
    return replace(timing, offered_ms=_ms(step.offered_at), queue=queue, priority=step.priority)


def _has_earlier_attempt(step: Step) -> bool:
    """Return whether an attempt of ``step`` has ended and was followed by another, or by a wait for another."""
    # The last claim of a ready step is over too; that of any other step is its present or final attempt.
    claims_without_retry = 0 if step.status is StepStatus.READY else 1
    return step.claims > claims_without_retry


def _ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1_000)
