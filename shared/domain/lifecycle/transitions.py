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

from shared.domain.execution import CancelRequest, ErrorKind, Execution, Lease, LogEvent, RunError, Step
from shared.domain.lifecycle import log_events, step_transitions
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.timings import UNKNOWN_AGENT_TIMEOUT, Timings, is_overdue
from shared.domain.status import ExecutionStatus, StepStatus, transition_execution, transition_step


def start(new_execution: Execution, now: datetime, timings: Timings) -> Decision:
    """Take in a run that was accepted: the steps that need nothing are ready, and handed out unless it is for later.

    A step that ``blank`` bears already stays as it is: completed by the run that this one retries, or resting.
    """
    later = new_execution.run_after is not None and new_execution.run_after > now
    steps = {
        step.id: new_execution.steps.get(step.id) or Step(step.id, step.agent) for step in new_execution.basket.steps
    }
    for step_id in step_transitions.newly_ready(new_execution, steps):
        if later and new_execution.run_after is not None:
            steps[step_id] = step_transitions.delay_step(steps[step_id], new_execution.run_after)
        else:
            steps[step_id] = step_transitions.offer_step(steps[step_id], now, timings)
    retried = f", a retry of {new_execution.retry_of}" if new_execution.retry_of else ""
    message = f"accepted basket {new_execution.basket.name}{retried}"
    told = log_events.run_event(new_execution, now, "execution.accepted", message, step="initialization")
    status = ExecutionStatus.SCHEDULED if later else ExecutionStatus.QUEUED
    begun = replace(new_execution, status=status, steps=steps, queued_at=None if later else now)
    hand_out = tuple(step.id for step in steps.values() if step.status is StepStatus.READY and not step.is_delayed)
    return Decision(begun, dispatch=hand_out, events=(told,))


def claim(execution: Execution, step_id: str, token: str, now: datetime, timings: Timings) -> Decision | None:
    """Give ``step_id`` to the worker that made ``token``; None where there is nothing to claim.

    A doubled, late or made-up message ends here: only a ready step of a run that is not over can be claimed, and
    one that waits for a moment not before it. Past a deadline the run expires instead.
    """
    step = execution.steps.get(step_id)
    if step is None or execution.is_done or step.status is not StepStatus.READY:
        return None
    if step.is_delayed and step.due_by is not None and step.due_by > now:
        return None
    expired = expire(execution, now)
    if expired is not None:
        return expired
    claimed = step_transitions.claim_step(step, token, now, timings)
    began = step_transitions.at_or_after(execution.queued_at or execution.created_at, now)
    running = replace(
        step_transitions.with_steps(execution, claimed),
        status=transition_execution(execution.status, ExecutionStatus.RUNNING),
        queued_at=execution.queued_at or began,
        started_at=execution.started_at or began,
    )
    return Decision(
        running, next_step=step_id, events=(log_events.step_started_event(claimed, now),), is_lock_only=True
    )


def complete(
    execution: Execution,
    lease: Lease,
    output: StepOutput,
    now: datetime,
    timings: Timings,
    *,
    next_token: str | None = None,
) -> Decision:
    """Record the output of the step under ``lease``; raises LeaseLost where the step has moved on.

    Steps that became ready are handed out, all but one of the same queue, which the worker that made
    ``next_token`` claims in the same write and runs next.
    """
    step = step_transitions.step_under_lease(execution, lease)
    done = step_transitions.end_step(
        step, StepStatus.COMPLETED, now, output_bytes=len(output.json), output_apart=output.is_external
    )
    events = [log_events.step_event(done, now, "step.completed", f"{done.id} completed")]
    steps = {**execution.steps, step.id: done}
    run_here = None
    queue = execution.basket.step(step.id).queue
    for ready in step_transitions.newly_ready(execution, steps):
        if next_token is not None and run_here is None and execution.basket.step(ready).queue == queue:
            run_here = ready
            free = replace(steps[ready], status=transition_step(steps[ready].status, StepStatus.READY))
            steps[ready] = step_transitions.claim_step(free, next_token, now, timings)
            events.append(log_events.step_started_event(steps[ready], now))
        else:
            steps[ready] = step_transitions.offer_step(steps[ready], now, timings)
    advance = step_transitions.finish_if_done(replace(execution, steps=steps), now, events)
    return replace(
        advance,
        next_step=run_here,
        dispatch=step_transitions.newly_offered(execution, advance.execution),
        outputs=(output,),
    )


def fail(execution: Execution, lease: Lease, error: RunError, now: datetime, *, jitter: float = 1.0) -> Decision:
    """Record that the step under ``lease`` failed; raises LeaseLost where the step has moved on.

    A transient failure is tried again as the step's policy says, after a rest of which ``chance`` takes a part;
    any other is for good. Under a cancel nothing is tried again.
    """
    step = step_transitions.step_under_lease(execution, lease)
    counted = replace(step, failures=step.failures + 1)
    if execution.cancel is not None and error.kind is ErrorKind.CANCELLED:
        return step_transitions.cancel_step(execution, counted, now)
    rest = None
    if error.kind is ErrorKind.TRANSIENT and execution.cancel is None:
        policy = execution.basket.step(step.id).retry
        rest = policy.delay_after(counted.failures, timedelta(milliseconds=step.waited_ms), jitter)
    if rest is None:
        return step_transitions.fail_step(execution, counted, error, now)
    rest_ms = rest // timedelta(milliseconds=1)
    message = f"{step.id} failed and is tried again in {rest.total_seconds():g} s: {error.message}"
    told = log_events.step_event(
        counted, now, "step.retrying", message, level="warning", status="retrying",
        error_code=error.error_code, retry_in_ms=rest_ms,
    )  # fmt: skip
    # The token stays: it tells this worker, should the answer be lost, that the write is its own.
    rested = step_transitions.delay_step(counted, now + rest, waited_ms=step.waited_ms + rest_ms)
    return Decision(step_transitions.with_steps(execution, rested), events=(told,))


def release(execution: Execution, lease: Lease, now: datetime, timings: Timings, reason: str) -> Decision:
    """Hand a step back that its worker cannot finish, so that it goes on elsewhere at once; no failure and no loss.

    Raises LeaseLost where the step has moved on. Under a cancel it ends instead.
    """
    step = step_transitions.step_under_lease(execution, lease)
    if execution.cancel is not None:
        return step_transitions.cancel_step(execution, step, now)
    told = log_events.step_event(step, now, "step.released", f"{step.id} was handed back: {reason}", status="released")
    back = step_transitions.offer_step(step, now, timings)
    return Decision(step_transitions.with_steps(execution, back), dispatch=(step.id,), events=(told,))


def release_unknown_agent(execution: Execution, lease: Lease, now: datetime) -> Decision:
    """Hand a step back that this worker does not know, to a moment ahead: a newer release may know it.

    After an hour of that it fails. Raises LeaseLost where the step has moved on.
    """
    step = step_transitions.step_under_lease(execution, lease)
    since = step.stranger_since or execution.steps[step.id].started_at or now
    if execution.cancel is not None:
        return step_transitions.cancel_step(execution, step, now)
    if now - since >= UNKNOWN_AGENT_TIMEOUT:
        message = f"agent {step.agent!r} is installed on no worker"
        error = RunError("agent_error", message, ErrorKind.LOST, step.agent, step.id, step.claims)
        return step_transitions.fail_step(execution, step, error, now)
    told = log_events.step_event(
        step, now, "step.released", f"{step.id} was handed back: this worker has no agent {step.agent}",
        level="warning", status="released",
    )  # fmt: skip
    rested = step_transitions.delay_step(
        step, now + step_transitions.unknown_agent_delay(since, now), stranger_since=since
    )
    return Decision(step_transitions.with_steps(execution, rested), events=(told,))


def rescue(execution: Execution, step_id: str, now: datetime, timings: Timings) -> Decision | None:
    """Look again at a step that is past its due moment; None where it is not.

    A ready step is offered (again). A running one has lost its worker: it is offered again too, until it has lost
    as many as ``terms`` allow; then it fails with ``worker_lost``, or a poisonous step would end worker after
    worker for ever. Under a cancel it ends.
    """
    step = execution.steps.get(step_id)
    if step is None or execution.is_done or not is_overdue(execution, step, now, timings):
        return None
    if step.status is StepStatus.READY:
        return _reoffer_step(execution, step, now, timings)
    lost = replace(step, losses=step.losses + 1, token=None)
    if execution.cancel is not None:
        return replace(step_transitions.cancel_step(execution, lost, now), rescued_step=step.id)
    message = f"{step.id} lost its worker ({lost.losses} of {timings.losses_max})"
    told = log_events.step_event(lost, now, "step.worker_lost", message, level="warning", status="lost")
    if lost.losses >= timings.losses_max:
        return replace(
            step_transitions.fail_step(execution, lost, _worker_lost_error(lost), now, (told,)), rescued_step=step.id
        )
    return _reoffer_step(execution, lost, now, timings, (told,))


def expire(execution: Execution, now: datetime) -> Decision | None:
    """End a run past its deadline, or past its start deadline without a claim; None where it is not.

    A live lease does not save it: its holder's writes are refused from then on.
    """
    if execution.is_done:
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
            over.append(step_transitions.end_step(step, StepStatus.FAILED, now, error=error))
    return _end_run(step_transitions.with_steps(execution, *over), now, run_error)


def cancel(execution: Execution, now: datetime, reason: str | None = None) -> Decision | None:
    """Ask a run to stop; None where it is over or was asked before.

    What is not running ends at once, and the run with it unless a step runs: that one is asked by its heartbeat.
    """
    if execution.is_done or execution.cancel is not None:
        return None
    asked = replace(execution, cancel=CancelRequest(now, reason))
    message = f"cancel requested: {reason}" if reason else "cancel requested"
    told = LogEvent(now, "execution.cancel_requested", message, level="warning", status="cancelling")
    if all(step.status is not StepStatus.RUNNING for step in asked.steps.values()):
        return _end_run(asked, now, step_transitions.cancelled_error(asked), (told,))
    stopping = _end_waiting_steps(asked, now)
    cancelling = replace(stopping, status=transition_execution(asked.status, ExecutionStatus.CANCELLING))
    return Decision(cancelling, events=(told,))


def _end_run(execution: Execution, now: datetime, error: RunError, events: tuple[LogEvent, ...] = ()) -> Decision:
    """End a run of which nothing runs any more, with all that waits in it."""
    status = ExecutionStatus.FAILED if execution.cancel is None else ExecutionStatus.CANCELLED
    over = replace(
        _end_waiting_steps(execution, now),
        status=transition_execution(execution.status, status),
        finished_at=step_transitions.at_or_after(execution.started_at or execution.created_at, now),
        error=error if execution.cancel is None else step_transitions.cancelled_error(execution),
    )
    told = log_events.run_event(
        over, now, f"execution.{status}", f"basket {over.basket.name} {status}: {error.message}"
    )
    return Decision(over, events=(*events, told))


def _end_waiting_steps(execution: Execution, now: datetime) -> Execution:
    over = []
    for step in execution.steps.values():
        if step.status is StepStatus.READY:
            over.append(step_transitions.end_step(step, StepStatus.CANCELLED, now))
        elif step.status is StepStatus.WAITING:
            over.append(step_transitions.end_step(step, StepStatus.SKIPPED, now))
    return step_transitions.with_steps(execution, *over)


def _reoffer_step(
    execution: Execution, step: Step, now: datetime, terms: Timings, events: tuple[LogEvent, ...] = ()
) -> Decision:
    again = step_transitions.with_steps(execution, step_transitions.offer_step(step, now, terms))
    if execution.status is ExecutionStatus.SCHEDULED:
        again = replace(again, status=transition_execution(execution.status, ExecutionStatus.QUEUED), queued_at=now)
        events = (*events, log_events.run_event(again, now, "execution.queued", "the run's moment has come"))
    return Decision(again, dispatch=(step.id,), events=events, rescued_step=step.id)


def _worker_lost_error(step: Step) -> RunError:
    return RunError(
        "worker_lost",
        f"{step.losses} workers were lost while they ran {step.id}; the last one did not renew its lease",
        ErrorKind.LOST,
        agent=step.agent,
        step=step.id,
        attempt=step.claims,
        retryable=True,
    )
