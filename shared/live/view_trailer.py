"""The mark at the end of a rendered poll: what its next hints are reckoned from, and no client is shown.

It is cut off without parsing the poll. A poll that a process of another release rendered may lack its ``timing``, or
bear one with more in it than is known here: then its hints are as for a run of which nothing is known.
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
from shared.queue.message import priority_of

TRAILER_BYTES_MAX: Final = 500

_TIMING: Final = b',"timing":'
_WAIT: Final = b',"resting":'
_NO_EXPIRY: Final = b',"expires_ms":null}'  # left out, for the release before this one does not know it
# To the very end: what callers wrote may look like a mark, but something always comes after it.
_TRAILER: Final = re.compile(rb',"timing":(\{[^{}]*\})(?:,"resting":(\{[^{}]*\}))?\Z|,"resting":(\{[^{}]*\})\Z')


@dataclass(frozen=True, slots=True)
class WaitState:
    """Why no step of a run runs: ``queue``, ``retry`` or ``schedule``; the latter two until a moment (epoch ms)."""

    reason: str
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RunTiming:
    """What tells how long a run will take: what it is, and since when (epoch ms) it is what it is.

    ``agent`` is that of the step which runs, or is offered; ``again`` tells that a step is at a later attempt, or
    waits for one. Whatever it does, it is over soon after ``expires_ms``.
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
    """What is rendered for the next poll's hints and never shown; empty where the run is over."""

    wait_state: WaitState | None = None
    timing: RunTiming | None = None


EMPTY_TRAILER: Final = Trailer()
_Part = TypeVar("_Part", WaitState, RunTiming)


def split_trailer(view: bytes) -> tuple[bytes, Trailer]:
    """Answer a rendered poll as clients may see it, and the mark that stands at its very end."""
    since = max(len(view) - TRAILER_BYTES_MAX, 0)
    if view.find(_TIMING, since) < 0 and view.find(_WAIT, since) < 0:
        return view, EMPTY_TRAILER
    found = _TRAILER.search(view, since)
    if found is None:
        return view, EMPTY_TRAILER
    timing, rest = found[1], found[2] or found[3]
    return view[: found.start()], Trailer(_decode_part(WaitState, rest), _decode_part(RunTiming, timing))


def _decode_part(kind: type[_Part], written: bytes | None) -> _Part | None:
    """A part of a mark; None where a newer release has written what this one does not know."""
    try:
        return None if written is None else kind(**orjson.loads(written))
    except TypeError:
        return None


def trailer_of(execution: Execution) -> Trailer:
    """Answer the mark of a run as it stands."""
    if execution.is_done:
        return EMPTY_TRAILER
    running = next((step for step in execution.steps.values() if step.status is StepStatus.RUNNING), None)
    step = running or _first_ready(execution)
    rest = None if step is None or running is not None else _wait_state_of(execution, step)
    return Trailer(rest, _timing_of(execution, step))


def encode_trailer(mark: Trailer) -> bytes:
    """Answer the mark as it stands at the end of a rendered poll."""
    timing = b"" if mark.timing is None else _TIMING + orjson.dumps(mark.timing).replace(_NO_EXPIRY, b"}")
    return timing + (b"" if mark.wait_state is None else _WAIT + orjson.dumps(mark.wait_state))


def _first_ready(execution: Execution) -> Step | None:
    """The first of the ready steps to become due; those that wait for a moment come after those on offer."""
    ready = [step for step in execution.steps.values() if step.status is StepStatus.READY and step.due_by is not None]
    return min(ready, key=lambda step: (step.is_delayed, step.due_by)) if ready else None


def _wait_state_of(execution: Execution, first: Step) -> WaitState:
    if not first.is_delayed:
        return WaitState("queue")
    reason = "retry" if first.claims else "queue"  # a first step is held back by the simulator's script alone
    if execution.status is ExecutionStatus.SCHEDULED:
        reason = "schedule"
    return WaitState(reason, _ms(first.due_by))


def _timing_of(execution: Execution, step: Step | None) -> RunTiming:
    timing = RunTiming(
        run_samples_key(execution),
        None if step is None else step.agent,
        _ms(execution.started_at),
        None if step is None else _ms(step.started_at),
        again=any(one.claims > (one.status is not StepStatus.READY) for one in execution.steps.values()),
        cancel_ms=None if execution.cancel is None else _ms(execution.cancel.requested_at),
        expires_ms=_ms(execution.expires_at),
    )
    if step is None or step.status is not StepStatus.READY or step.offered_at is None:
        return timing
    queue = execution.basket.step(step.id).queue
    return replace(timing, offered_ms=_ms(step.offered_at), queue=queue, priority=priority_of(step))


def _ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1_000)
