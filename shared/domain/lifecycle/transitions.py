"""What can happen to an execution: pure functions from a value and a moment to a decision.

Each takes the execution as loaded, the store's ``now`` and what happened, and answers an :class:`Advance`: the new
execution, the step that this worker goes on with, the steps to offer, the log lines that tell of it. Nobody else
changes an execution. The caller saves the decision with one filtered update and only then carries it out; where
somebody wrote first it loads again and asks again.

    waiting -> ready -> running -> completed | failed | cancelled
                 ^--------'  by retry, release or rescue
    waiting -> skipped       where it never got to run

Every step that is ready or running carries ``due_by``: whatever should have happened by then and did not is looked
at again. For a ready step that was offered it is its hand-off time, for one that waits for a moment (a schedule, a
retry) that moment, for a running one the end of its lease. So a lost message, a killed worker and an API that died
after its insert are one case, and :func:`rescue` is its rule; :func:`expire` is the rule of the run's own deadlines.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from shared.domain.execution import Cancel, ErrorKind, Event, Execution, Lease, RunError, Step
from shared.domain.lifecycle import log_events, step_transitions
from shared.domain.lifecycle.decision import Advance, Output
from shared.domain.lifecycle.timings import STRANGER_KEPT, Terms, is_due
from shared.domain.status import ExecutionStatus, StepStatus, move_execution, move_step


def start(blank: Execution, now: datetime, terms: Terms) -> Advance:
    """Take in a run that was accepted: the steps that need nothing are ready, and handed out unless it is for later.

    A step that ``blank`` bears already stays as it is: completed by the run that this one retries, or resting.
    """
    later = blank.run_after is not None and blank.run_after > now
    steps = {step.id: blank.steps.get(step.id) or Step(step.id, step.agent) for step in blank.basket.steps}
    for step_id in step_transitions.freed(blank, steps):
        if later and blank.run_after is not None:
            steps[step_id] = step_transitions.resting(steps[step_id], blank.run_after)
        else:
            steps[step_id] = step_transitions.offered(steps[step_id], now, terms)
    retried = f", a retry of {blank.retry_of}" if blank.retry_of else ""
    message = f"accepted basket {blank.basket.name}{retried}"
    told = log_events.of_run(blank, now, "execution.accepted", message, step="initialization")
    status = ExecutionStatus.SCHEDULED if later else ExecutionStatus.QUEUED
    begun = replace(blank, status=status, steps=steps, queued_at=None if later else now)
    hand_out = tuple(step.id for step in steps.values() if step.status is StepStatus.READY and not step.rests)
    return Advance(begun, hand_out=hand_out, events=(told,))


def claim(execution: Execution, step_id: str, token: str, now: datetime, terms: Terms) -> Advance | None:
    """Give ``step_id`` to the worker that made ``token``; None where there is nothing to claim.

    A doubled, late or made-up message ends here: only a ready step of a run that is not over can be claimed, and
    one that waits for a moment not before it. Past a deadline the run expires instead.
    """
    step = execution.steps.get(step_id)
    if step is None or execution.done or step.status is not StepStatus.READY:
        return None
    if step.rests and step.due_by is not None and step.due_by > now:
        return None
    expired = expire(execution, now)
    if expired is not None:
        return expired
    claimed = step_transitions.claimed(step, token, now, terms)
    began = step_transitions.not_before(execution.queued_at or execution.created_at, now)
    running = replace(
        step_transitions.with_steps(execution, claimed),
        status=move_execution(execution.status, ExecutionStatus.RUNNING),
        queued_at=execution.queued_at or began,
        started_at=execution.started_at or began,
    )
    return Advance(running, run_here=step_id, events=(log_events.started(claimed, now),), lock_only=True)


def complete(
    execution: Execution, lease: Lease, output: Output, now: datetime, terms: Terms, *, next_token: str | None = None
) -> Advance:
    """Record the output of the step under ``lease``; raises LeaseLost where the step has moved on.

    Steps that became ready are handed out, all but one of the same queue, which the worker that made
    ``next_token`` claims in the same write and runs next.
    """
    step = step_transitions.held(execution, lease)
    done = step_transitions.ended(
        step, StepStatus.COMPLETED, now, output_bytes=len(output.json), output_apart=output.apart
    )
    events = [log_events.of_step(done, now, "step.completed", f"{done.id} completed")]
    steps = {**execution.steps, step.id: done}
    run_here = None
    queue = execution.basket.step(step.id).queue
    for ready in step_transitions.freed(execution, steps):
        if next_token is not None and run_here is None and execution.basket.step(ready).queue == queue:
            run_here = ready
            free = replace(steps[ready], status=move_step(steps[ready].status, StepStatus.READY))
            steps[ready] = step_transitions.claimed(free, next_token, now, terms)
            events.append(log_events.started(steps[ready], now))
        else:
            steps[ready] = step_transitions.offered(steps[ready], now, terms)
    advance = step_transitions.concluded(replace(execution, steps=steps), now, events)
    return replace(
        advance, run_here=run_here, hand_out=step_transitions.handed(execution, advance.execution), outputs=(output,)
    )


def fail(execution: Execution, lease: Lease, error: RunError, now: datetime, *, chance: float = 1.0) -> Advance:
    """Record that the step under ``lease`` failed; raises LeaseLost where the step has moved on.

    A transient failure is tried again as the step's policy says, after a rest of which ``chance`` takes a part;
    any other is for good. Under a cancel nothing is tried again.
    """
    step = step_transitions.held(execution, lease)
    counted = replace(step, failures=step.failures + 1)
    if execution.cancel is not None and error.kind is ErrorKind.CANCELLED:
        return step_transitions.stopped(execution, counted, now)
    rest = None
    if error.kind is ErrorKind.TRANSIENT and execution.cancel is None:
        policy = execution.basket.step(step.id).retry
        rest = policy.rest_after(counted.failures, timedelta(milliseconds=step.waited_ms), chance)
    if rest is None:
        return step_transitions.failed(execution, counted, error, now)
    rest_ms = rest // timedelta(milliseconds=1)
    message = f"{step.id} failed and is tried again in {rest.total_seconds():g} s: {error.message}"
    told = log_events.of_step(
        counted, now, "step.retrying", message, level="warning", status="retrying",
        error_code=error.error_code, retry_in_ms=rest_ms,
    )  # fmt: skip
    # The token stays: it tells this worker, should the answer be lost, that the write is its own.
    rested = step_transitions.resting(counted, now + rest, waited_ms=step.waited_ms + rest_ms)
    return Advance(step_transitions.with_steps(execution, rested), events=(told,))


def release(execution: Execution, lease: Lease, now: datetime, terms: Terms, reason: str) -> Advance:
    """Hand a step back that its worker cannot finish, so that it goes on elsewhere at once; no failure and no loss.

    Raises LeaseLost where the step has moved on. Under a cancel it ends instead.
    """
    step = step_transitions.held(execution, lease)
    if execution.cancel is not None:
        return step_transitions.stopped(execution, step, now)
    told = log_events.of_step(step, now, "step.released", f"{step.id} was handed back: {reason}", status="released")
    back = step_transitions.offered(step, now, terms)
    return Advance(step_transitions.with_steps(execution, back), hand_out=(step.id,), events=(told,))


def estrange(execution: Execution, lease: Lease, now: datetime) -> Advance:
    """Hand a step back that this worker does not know, to a moment ahead: a newer release may know it.

    After an hour of that it fails. Raises LeaseLost where the step has moved on.
    """
    step = step_transitions.held(execution, lease)
    since = step.stranger_since or execution.steps[step.id].started_at or now
    if execution.cancel is not None:
        return step_transitions.stopped(execution, step, now)
    if now - since >= STRANGER_KEPT:
        message = f"agent {step.agent!r} is installed on no worker"
        error = RunError("agent_error", message, ErrorKind.LOST, step.agent, step.id, step.claims)
        return step_transitions.failed(execution, step, error, now)
    told = log_events.of_step(
        step, now, "step.released", f"{step.id} was handed back: this worker has no agent {step.agent}",
        level="warning", status="released",
    )  # fmt: skip
    rested = step_transitions.resting(step, now + step_transitions.stranger_rest(since, now), stranger_since=since)
    return Advance(step_transitions.with_steps(execution, rested), events=(told,))


def rescue(execution: Execution, step_id: str, now: datetime, terms: Terms) -> Advance | None:
    """Look again at a step that is past its due moment; None where it is not.

    A ready step is offered (again). A running one has lost its worker: it is offered again too, until it has lost
    as many as ``terms`` allow; then it fails with ``worker_lost``, or a poisonous step would end worker after
    worker for ever. Under a cancel it ends.
    """
    step = execution.steps.get(step_id)
    if step is None or execution.done or not is_due(execution, step, now, terms):
        return None
    if step.status is StepStatus.READY:
        return _offer_again(execution, step, now, terms)
    lost = replace(step, losses=step.losses + 1, token=None)
    if execution.cancel is not None:
        return replace(step_transitions.stopped(execution, lost, now), rescued=step.id)
    message = f"{step.id} lost its worker ({lost.losses} of {terms.losses_max})"
    told = log_events.of_step(lost, now, "step.worker_lost", message, level="warning", status="lost")
    if lost.losses >= terms.losses_max:
        return replace(step_transitions.failed(execution, lost, _worker_lost(lost), now, (told,)), rescued=step.id)
    return _offer_again(execution, lost, now, terms, (told,))


def expire(execution: Execution, now: datetime) -> Advance | None:
    """End a run past its deadline, or past its start deadline without a claim; None where it is not.

    A live lease does not save it: its holder's writes are refused from then on.
    """
    if execution.done:
        return None
    if execution.deadline is not None and execution.deadline <= now:
        run_error = RunError("deadline_exceeded", "the run was not done by its deadline", ErrorKind.TIMEOUT)
    elif execution.started_at is None and execution.start_deadline is not None and execution.start_deadline <= now:
        message = "no worker began the run by its start deadline"
        run_error = RunError("start_deadline_exceeded", message, ErrorKind.TIMEOUT)
    else:
        return None
    over = []
    for step in execution.steps.values():
        if step.status is StepStatus.RUNNING:
            error = replace(run_error, agent=step.agent, step=step.id, attempt=step.claims)
            over.append(step_transitions.ended(step, StepStatus.FAILED, now, error=error))
    return _called_off(step_transitions.with_steps(execution, *over), now, run_error)


def cancel(execution: Execution, now: datetime, reason: str | None = None) -> Advance | None:
    """Ask a run to stop; None where it is over or was asked before.

    What is not running ends at once, and the run with it unless a step runs: that one is asked by its heartbeat.
    """
    if execution.done or execution.cancel is not None:
        return None
    asked = replace(execution, cancel=Cancel(now, reason))
    message = f"cancel requested: {reason}" if reason else "cancel requested"
    told = Event(now, "execution.cancel_requested", message, level="warning", status="cancelling")
    if all(step.status is not StepStatus.RUNNING for step in asked.steps.values()):
        return _called_off(asked, now, step_transitions.cancelled_error(asked), (told,))
    stopping = _without_what_waits(asked, now)
    cancelling = replace(stopping, status=move_execution(asked.status, ExecutionStatus.CANCELLING))
    return Advance(cancelling, events=(told,))


def _called_off(execution: Execution, now: datetime, error: RunError, events: tuple[Event, ...] = ()) -> Advance:
    """End a run of which nothing runs any more, with all that waits in it."""
    status = ExecutionStatus.FAILED if execution.cancel is None else ExecutionStatus.CANCELLED
    over = replace(
        _without_what_waits(execution, now),
        status=move_execution(execution.status, status),
        finished_at=step_transitions.not_before(execution.started_at or execution.created_at, now),
        error=error if execution.cancel is None else step_transitions.cancelled_error(execution),
    )
    told = log_events.of_run(over, now, f"execution.{status}", f"basket {over.basket.name} {status}: {error.message}")
    return Advance(over, events=(*events, told))


def _without_what_waits(execution: Execution, now: datetime) -> Execution:
    over = []
    for step in execution.steps.values():
        if step.status is StepStatus.READY:
            over.append(step_transitions.ended(step, StepStatus.CANCELLED, now))
        elif step.status is StepStatus.WAITING:
            over.append(step_transitions.ended(step, StepStatus.SKIPPED, now))
    return step_transitions.with_steps(execution, *over)


def _offer_again(
    execution: Execution, step: Step, now: datetime, terms: Terms, events: tuple[Event, ...] = ()
) -> Advance:
    again = step_transitions.with_steps(execution, step_transitions.offered(step, now, terms))
    if execution.status is ExecutionStatus.SCHEDULED:
        again = replace(again, status=move_execution(execution.status, ExecutionStatus.QUEUED), queued_at=now)
        events = (*events, log_events.of_run(again, now, "execution.queued", "the run's moment has come"))
    return Advance(again, hand_out=(step.id,), events=events, rescued=step.id)


def _worker_lost(step: Step) -> RunError:
    return RunError(
        "worker_lost",
        f"{step.losses} workers were lost while they ran {step.id}; the last one did not renew its lease",
        ErrorKind.LOST,
        agent=step.agent,
        step=step.id,
        attempt=step.claims,
        retryable=True,
    )
