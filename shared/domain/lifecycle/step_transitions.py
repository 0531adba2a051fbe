"""Building blocks of the transitions: pure functions that move one step, or end a run whose steps are all final."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from shared.domain.definitions.basket import BasketStep
from shared.domain.execution import INLINE, ErrorKind, Execution, Lease, LogEvent, RunError, Step
from shared.domain.lifecycle import log_events
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.timings import UNKNOWN_AGENT_DELAY_MAX, UNKNOWN_AGENT_DELAY_MIN, Timings
from shared.domain.status import ExecutionStatus, StepStatus, transition_execution, transition_step
from shared.errors import LeaseLost


def offer_step(step: Step, now: datetime, timings: Timings) -> Step:
    """Return the step as ready and offered at ``now``, from any status that allows it."""
    offers = step.offers + 1
    return _with_status_ready(step, due_by=now + timings.handoff_timeout(offers), offers=offers, offered_at=now)


def delay_step(step: Step, until: datetime, **changes: Any) -> Step:
    """Return the step as delayed: ready but not offered; the reconciler offers it at ``until``."""
    return _with_status_ready(step, due_by=until, offered_at=None, **changes)


def _with_status_ready(step: Step, **changes: Any) -> Step:
    if step.status is not StepStatus.READY:
        changes["status"] = transition_step(step.status, StepStatus.READY)
    return replace(step, started_at=None, message=None, **changes)


def claim_step(step: Step, token: str, now: datetime, timings: Timings) -> Step:
    """Return the step as running under a new claim, whose lease ends at ``now + timings.lease``."""
    return replace(
        step,
        status=transition_step(step.status, StepStatus.RUNNING),
        claims=step.claims + 1,
        token=token,
        started_at=now,
        due_by=now + timings.lease,
        message=None,
    )


def end_step(step: Step, status: StepStatus, now: datetime, **changes: Any) -> Step:
    """Return the step in the final status ``status``; one that is not completed keeps its progress."""
    return replace(
        step,
        status=transition_step(step.status, status),
        finished_at=None if step.started_at is None else at_or_after(step.started_at, now),
        due_by=None,
        percent=None if status is StepStatus.COMPLETED else step.percent,
        message=None,
        **changes,
    )


def at_or_after(earlier: datetime, now: datetime) -> datetime:
    """Return ``now``, but never a time before ``earlier``.

    Each process reads the store's clock for itself, and can be wrong by the round trip of that reading.
    """
    return max(earlier, now)


def step_under_lease(execution: Execution, lease: Lease) -> Step:
    """Return the step that runs under ``lease``; raises LeaseLost if it no longer does."""
    step = execution.steps.get(lease.step)
    if step is None or execution.is_done or not step.is_running_under(lease):
        raise LeaseLost(f"step {lease.step} of {execution.id} has moved on from claim {lease.claim}")
    return step


def with_steps(execution: Execution, *steps: Step) -> Execution:
    """Return the execution with these steps in place of those with the same ids."""
    return replace(execution, steps={**execution.steps, **{step.id: step for step in steps}})


def fail_step(
    execution: Execution, step: Step, error: RunError, now: datetime, events: Iterable[LogEvent] = ()
) -> Decision:
    """End a step as failed; the run ends too if no other step is left."""
    failed = end_step(step, StepStatus.FAILED, now, error=error)
    message = f"{step.id} failed: {error.message}"
    event = log_events.step_event(
        failed, now, log_events.STEP_FAILED, message, level="error", status="error", error_code=error.error_code
    )
    return finish_if_done(execution, {**execution.steps, step.id: failed}, now, [*events, event])


def cancel_step(execution: Execution, step: Step, now: datetime) -> Decision:
    """End a step as cancelled; the run ends too if no other step is left."""
    cancelled = end_step(step, StepStatus.CANCELLED, now, error=cancelled_error(execution, step))
    message = f"{step.id} was cancelled"
    event = log_events.step_event(cancelled, now, "step.cancelled", message, level="warning", status="cancelled")
    return finish_if_done(execution, {**execution.steps, step.id: cancelled}, now, [event])


def newly_ready(execution: Execution, steps: dict[str, Step]) -> list[str]:
    """Return the ids of the waiting steps whose needs are now all completed, in the basket's order."""
    return [
        step.id
        for step in execution.basket.steps
        if steps[step.id].status is StepStatus.WAITING
        and all(steps[need].status is StepStatus.COMPLETED for need in step.needs)
    ]


def newly_offered(before: Execution, after: Execution) -> tuple[str, ...]:
    """Return the ids of the ready steps that a decision has offered."""
    return tuple(
        step.id
        for step in after.steps.values()
        if step.status is StepStatus.READY and step.offers > before.steps[step.id].offers
    )


def finish_if_done(
    execution: Execution, steps: Mapping[str, Step], now: datetime, events: Iterable[LogEvent]
) -> Decision:
    """Give a run new ``steps``, skip those that can never run, and end the run if all are final.

    After a cancel no step begins any more once none runs.
    """
    steps = dict(steps)
    may_go_on = execution.cancel is None or any(step.status is StepStatus.RUNNING for step in steps.values())
    for step in execution.basket.steps:
        if steps[step.id].status is StepStatus.WAITING and not (may_go_on and _can_run(step, steps)):
            steps[step.id] = end_step(steps[step.id], StepStatus.SKIPPED, now)
    if not all(step.status.is_final for step in steps.values()):
        return Decision(replace(execution, steps=steps), events=tuple(events))
    status, error = _final_status(execution, steps.values(), now)
    finished = replace(
        execution,
        steps=steps,
        status=transition_execution(execution.status, status),
        finished_at=at_or_after(execution.started_at or execution.created_at, now),
        error=error,
        dead_letter=status is ExecutionStatus.FAILED and _is_dead_letter(execution, steps.values()),
    )
    event = log_events.run_event(finished, now, f"execution.{status}", f"basket {execution.basket.name} {status}")
    return Decision(finished, events=(*events, event))


def _can_run(step: BasketStep, steps: Mapping[str, Step]) -> bool:
    needed = (steps[need].status for need in step.needs)
    return all(status is StepStatus.COMPLETED or not status.is_final for status in needed)


def cancelled_error(execution: Execution, step: Step | None = None) -> RunError:
    """Return the error of a cancelled run, or of one of its steps."""
    reason = None if execution.cancel is None else execution.cancel.reason
    message = f"cancelled: {reason}" if reason else "cancelled by request"
    place = () if step is None else (step.agent, step.id, step.claims)
    return RunError("cancelled", message, ErrorKind.CANCELLED, *place)


def _final_status(
    execution: Execution, steps: Collection[Step], now: datetime
) -> tuple[ExecutionStatus, RunError | None]:
    if all(step.status is StepStatus.COMPLETED for step in steps):
        return ExecutionStatus.COMPLETED, None
    if execution.cancel is not None:
        return ExecutionStatus.CANCELLED, cancelled_error(execution)
    failures = sorted((step for step in steps if step.error is not None), key=lambda step: step.finished_at or now)
    return ExecutionStatus.FAILED, failures[0].error


def _is_dead_letter(execution: Execution, steps: Iterable[Step]) -> bool:
    """Return whether a failed run is a dead letter, so that it may be sent again by hand.

    It is one after lost workers, after the last retry of a transient failure, or if data broke a schema. An input that
    a caller's own inline basket makes wrong is the caller's to correct. A requeued run that fails is one whatever the
    error was: it replaces the dead letter that it was sent for.
    """
    if execution.requeue_of is not None:
        return True
    errors = [step.error for step in steps if step.error is not None]
    kinds = {ErrorKind.LOST, ErrorKind.TRANSIENT}
    codes = {"output_invalid"} if execution.kind == INLINE else {"input_invalid", "output_invalid"}
    return any(error.kind in kinds or error.error_code in codes for error in errors)


def unknown_agent_delay(since: datetime, now: datetime) -> timedelta:
    """Return the delay before a step with an unknown agent is offered again: back-off from 5 s to 60 s.

    The delay equals the time since a worker of an older release first handed the step back, within these bounds.
    """
    return min(max(now - since, UNKNOWN_AGENT_DELAY_MIN), UNKNOWN_AGENT_DELAY_MAX)
