"""What can happen to an execution: pure functions from a value and a moment to a decision.

Each takes the execution as loaded, the store's ``now`` and what happened, and answers an :class:`Advance`: the new
execution, the step that this worker goes on with, the steps to offer, the log lines that tell of it. Nobody else
changes an execution. The caller saves the decision with one filtered update and only then carries it out; where
somebody wrote first it loads again and asks again.

    waiting -> ready -> running -> completed | failed | cancelled
                 ^--------'  by rescue (and, later, by retry and release)
    waiting -> skipped       where a need of it did not complete

Every step that is ready or running carries ``due_by``: whatever should have happened by then and did not is looked
at again. For a ready step that is its hand-off time, for a running one the end of its lease. So a lost message, a
killed worker and an API that died after its insert are one case, and :func:`rescue` is its rule.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from shared.domain.execution import ErrorKind, Event, Execution, Lease, Record, RunError, Step
from shared.domain.status import ExecutionStatus, StepStatus, move_execution, move_step
from shared.errors import LeaseLost

HANDOFF_MAX: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Terms:
    """The periods and limits that decisions go by."""

    lease: timedelta = timedelta(seconds=30)
    handoff: timedelta = timedelta(seconds=5)
    losses_max: int = 3

    @property
    def ahead_max(self) -> timedelta:
        """How far ahead a due moment can lie; one further ahead was set by a clock that has since jumped."""
        return max(self.lease, self.handoff, HANDOFF_MAX)

    def handoff_after(self, offers: int) -> timedelta:
        """How long an offered step may wait for its claim: doubling with each offer, at most a minute."""
        doubled: timedelta = self.handoff * (1 << min(max(offers - 1, 0), 16))
        return max(self.handoff, min(doubled, HANDOFF_MAX))


@dataclass(frozen=True, slots=True)
class Output:
    """What a step returned, as JSON bytes; ``apart`` where it is too large to lie in the execution."""

    step: str
    json: bytes
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Advance:
    """What an event leads to: what to write, what to run here, what to hand out."""

    execution: Execution
    run_here: str | None = None
    hand_out: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    output: Output | None = None
    rescued: str | None = None
    """The step whose due moment must still be the one that was seen: a lease just renewed is not taken."""

    @property
    def as_accepted(self) -> Record:
        """The record of a run just started, which nobody has written to yet."""
        return Record(self.execution, self.events, len(self.events))


def start(blank: Execution, now: datetime, terms: Terms) -> Advance:
    """Queue a run that was accepted: the steps that need nothing are ready and handed out."""
    steps = {step.id: Step(step.id, step.agent) for step in blank.basket.steps}
    for step in blank.basket.steps:
        if not step.needs:
            steps[step.id] = _offered(steps[step.id], now, terms)
    accepted = Event(now, "execution.accepted", f"accepted basket {blank.basket.name}", step="initialization")
    queued = replace(blank, status=ExecutionStatus.QUEUED, steps=steps, queued_at=now)
    return Advance(queued, hand_out=_ready(steps), events=(accepted,))


def claim(execution: Execution, step_id: str, token: str, now: datetime, terms: Terms) -> Advance | None:
    """Give ``step_id`` to the worker that made ``token``; None where there is nothing to claim.

    A doubled, late or made-up message ends here: only a ready step of a run that is not over can be claimed.
    """
    step = execution.steps.get(step_id)
    if step is None or execution.done or step.status is not StepStatus.READY:
        return None
    claimed = _claimed(step, token, now, terms)
    running = replace(
        execution,
        status=move_execution(execution.status, ExecutionStatus.RUNNING),
        started_at=execution.started_at or now,
        steps={**execution.steps, step_id: claimed},
    )
    return Advance(running, run_here=step_id, events=(_started(claimed, now),))


def complete(
    execution: Execution, lease: Lease, output: Output, now: datetime, terms: Terms, *, next_token: str | None = None
) -> Advance:
    """Record the output of the step under ``lease``; raises LeaseLost where the step has moved on.

    Steps that became ready are handed out, all but one of the same queue, which the worker that made
    ``next_token`` claims in the same write and runs next.
    """
    step = _held(execution, lease)
    done = replace(
        step,
        status=move_step(step.status, StepStatus.COMPLETED),
        finished_at=now,
        due_by=None,
        output_bytes=len(output.json),
        output_apart=output.apart,
        percent=None,
        message=None,
    )
    events = [_step_event(done, now, "step.completed", f"{done.id} completed", data=_attempt(done))]
    steps = {**execution.steps, step.id: done}
    run_here = None
    queue = execution.basket.step(step.id).queue
    for ready in _freed(execution, steps):
        if next_token is not None and run_here is None and execution.basket.step(ready).queue == queue:
            run_here = ready
            moved = replace(steps[ready], status=move_step(steps[ready].status, StepStatus.READY))
            steps[ready] = _claimed(moved, next_token, now, terms)
            events.append(_started(steps[ready], now))
        else:
            steps[ready] = _offered(steps[ready], now, terms)
    advanced = _concluded(replace(execution, steps=steps), now, events)
    return replace(advanced, run_here=run_here, hand_out=_handed(execution, advanced.execution), output=output)


def fail(execution: Execution, lease: Lease, error: RunError, now: datetime) -> Advance:
    """Record that the step under ``lease`` failed for good; raises LeaseLost where the step has moved on."""
    step = _held(execution, lease)
    return _failed(execution, replace(step, failures=step.failures + 1), error, now)


def rescue(execution: Execution, step_id: str, now: datetime, terms: Terms) -> Advance | None:
    """Look again at a step that is past its due moment; None where it is not.

    A ready step is offered again. A running one has lost its worker: it is offered again too, until it has lost
    as many as ``terms`` allow; then it fails with ``worker_lost``, or a poisonous step would end worker after
    worker for ever.
    """
    step = execution.steps.get(step_id)
    if step is None or execution.done or not is_due(step, now, terms):
        return None
    if step.status is StepStatus.READY:
        return _offered_again(execution, step, now, terms, events=())
    lost = replace(step, losses=step.losses + 1, token=None)
    told = f"{step.id} lost its worker ({lost.losses} of {terms.losses_max})"
    event = _step_event(lost, now, "step.worker_lost", told, level="warning", data=_attempt(lost))
    if lost.losses >= terms.losses_max:
        error = RunError(
            "worker_lost",
            f"{lost.losses} workers were lost while they ran {step.id}; the last one did not renew its lease",
            ErrorKind.LOST,
            agent=step.agent,
            step=step.id,
            attempt=step.claims,
            retryable=True,
        )
        return replace(_failed(execution, lost, error, now, (event,)), rescued=step.id)
    ready = replace(lost, status=move_step(lost.status, StepStatus.READY))
    return _offered_again(execution, ready, now, terms, events=(event,))


def is_due(step: Step, now: datetime, terms: Terms) -> bool:
    """True where what a step's due moment stands for did not happen, or where no clock could have set it."""
    return step.due_by is not None and not now < step.due_by <= now + terms.ahead_max


def _offered_again(execution: Execution, step: Step, now: datetime, terms: Terms, events: tuple[Event, ...]) -> Advance:
    offered = replace(
        step,
        offers=step.offers + 1,
        offered_at=now,
        due_by=now + terms.handoff_after(step.offers + 1),
        started_at=None,
        percent=None,
        message=None,
    )
    again = replace(execution, steps={**execution.steps, step.id: offered})
    return Advance(again, hand_out=(step.id,), events=events, rescued=step.id)


def _offered(step: Step, now: datetime, terms: Terms) -> Step:
    return replace(
        step,
        status=move_step(step.status, StepStatus.READY),
        offers=step.offers + 1,
        offered_at=now,
        due_by=now + terms.handoff_after(step.offers + 1),
    )


def _claimed(step: Step, token: str, now: datetime, terms: Terms) -> Step:
    return replace(
        step,
        status=move_step(step.status, StepStatus.RUNNING),
        claims=step.claims + 1,
        token=token,
        started_at=now,
        due_by=now + terms.lease,
        percent=None,
        message=None,
    )


def _held(execution: Execution, lease: Lease) -> Step:
    step = execution.steps.get(lease.step)
    if step is None or execution.done or not step.holds(lease):
        raise LeaseLost(f"step {lease.step} of {execution.id} has moved on from claim {lease.claim}")
    return step


def _failed(
    execution: Execution, step: Step, error: RunError, now: datetime, events: tuple[Event, ...] = ()
) -> Advance:
    failed = replace(
        step,
        status=move_step(step.status, StepStatus.FAILED),
        finished_at=now,
        due_by=None,
        error=error,
        percent=None,
        message=None,
    )
    told = _step_event(
        failed, now, "step.failed", f"{step.id} failed: {error.message}", level="error", status="error",
        data=_attempt(failed, error_code=error.error_code),
    )  # fmt: skip
    steps = {**execution.steps, step.id: failed}
    return _concluded(replace(execution, steps=steps), now, [*events, told])


def _freed(execution: Execution, steps: dict[str, Step]) -> list[str]:
    """The waiting steps whose needs are now all completed, in the basket's order."""
    return [
        step.id
        for step in execution.basket.steps
        if steps[step.id].status is StepStatus.WAITING
        and all(steps[need].status is StepStatus.COMPLETED for need in step.needs)
    ]


def _concluded(execution: Execution, now: datetime, events: list[Event]) -> Advance:
    """Skip what can never run, and end the run where nothing is left to wait for."""
    steps = dict(execution.steps)
    for step in execution.basket.steps:
        if steps[step.id].status is StepStatus.WAITING and any(_never_completes(steps[need]) for need in step.needs):
            steps[step.id] = replace(steps[step.id], status=move_step(StepStatus.WAITING, StepStatus.SKIPPED))
    execution = replace(execution, steps=steps)
    if not all(step.status.is_final for step in steps.values()):
        return Advance(execution, events=tuple(events))
    failures = sorted(
        (step for step in steps.values() if step.error is not None), key=lambda step: step.finished_at or now
    )
    error = failures[0].error if failures else None
    status = ExecutionStatus.FAILED if failures else ExecutionStatus.COMPLETED
    ended = replace(execution, status=move_execution(execution.status, status), finished_at=now, error=error)
    events.append(
        Event(
            now,
            f"execution.{status}",
            f"basket {execution.basket.name} {status}",
            level="error" if failures else "info",
            status="error" if failures else "success",
        )
    )
    return Advance(ended, events=tuple(events))


def _never_completes(step: Step) -> bool:
    return step.status.is_final and step.status is not StepStatus.COMPLETED


def _ready(steps: dict[str, Step]) -> tuple[str, ...]:
    return tuple(step.id for step in steps.values() if step.status is StepStatus.READY)


def _handed(before: Execution, after: Execution) -> tuple[str, ...]:
    """The steps that a decision made ready and that nobody has claimed in it."""
    return tuple(
        step.id
        for step in after.steps.values()
        if step.status is StepStatus.READY and before.steps[step.id].status is not StepStatus.READY
    )


def _started(step: Step, now: datetime) -> Event:
    return _step_event(
        step, now, "step.started", f"{step.id} started, attempt {step.claims}", status="running", data=_attempt(step)
    )


def _attempt(step: Step, **more: Any) -> bytes:
    """The data of a step's line, as JSON."""
    facts = {"attempt": step.claims, **more}
    if step.duration_ms is not None:
        facts["duration_ms"] = step.duration_ms
    return json.dumps(facts, separators=(",", ":")).encode()


def _step_event(
    step: Step, now: datetime, event: str, message: str, *, level: str = "info", status: str = "success",
    data: bytes = b"{}",
) -> Event:  # fmt: skip
    return Event(now, event, message, level=level, agent=step.agent, step=step.id, status=status, data=data)
