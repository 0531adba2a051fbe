"""State transitions of an execution: pure functions from an execution and a time to a decision.

Each takes the execution as loaded, the store's ``now`` and the event, and returns a :class:`Decision`: the new
execution, the step that this worker runs next, the steps to offer, the log lines. No other code changes an
execution. The caller saves the decision with one optimistic write (filtered by the version) and carries it out only
after that; if another writer was first, it loads the execution and decides again.

    waiting -> ready -> running -> completed | failed | cancelled
                 ^--------'  by retry, release or rescue
    waiting -> skipped       if it can never run

Every step that is ready or running has a ``due_by``: if the expected event has not happened by then, the step is
checked again. For a ready step that was offered it is the end of its hand-off time, for a delayed step (schedule,
retry) the time of its offer, for a running step the end of its lease. So a lost message, a killed worker and an API
that died after its insert are one case, which :func:`rescue` handles; :func:`expire` handles the run's own deadlines.
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
    """Accept a new run: the steps without needs become ready and are offered, or delayed if the run is scheduled.

    A step that ``new_execution`` already has stays as it is: completed by the run that this one retries, or delayed.
    """
    is_later = new_execution.run_after is not None and new_execution.run_after > now
    given = new_execution.steps
    steps = {step.id: given.get(step.id) or Step(step.id, step.agent) for step in new_execution.basket.steps}
    for step_id in step_transitions.newly_ready(new_execution, steps):
        if is_later and new_execution.run_after is not None:
            steps[step_id] = step_transitions.delay_step(steps[step_id], new_execution.run_after)
        else:
            steps[step_id] = step_transitions.offer_step(steps[step_id], now, timings)
    retry_note = f", a retry of {new_execution.retry_of}" if new_execution.retry_of else ""
    message = f"accepted basket {new_execution.basket.name}{retry_note}"
    event = log_events.run_event(new_execution, now, "execution.accepted", message, step="initialization")
    status = ExecutionStatus.SCHEDULED if is_later else ExecutionStatus.QUEUED
    started = replace(new_execution, status=status, steps=steps, queued_at=None if is_later else now)
    dispatch = tuple(step.id for step in steps.values() if step.status is StepStatus.READY and not step.is_delayed)
    return Decision(started, dispatch=dispatch, events=(event,))


def claim(execution: Execution, step_id: str, token: str, now: datetime, timings: Timings) -> Decision | None:
    """Claim ``step_id`` for the worker that made ``token``; None if there is nothing to claim.

    A duplicate, late or forged task message ends here: only a ready step of a run that is not over can be claimed,
    and a delayed step not before its time. After a deadline the run expires instead.
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
    event = log_events.step_started_event(claimed, now)
    started_at = step_transitions.at_or_after(execution.queued_at or execution.created_at, now)
    running = replace(
        execution,
        steps={**execution.steps, claimed.id: claimed},
        status=transition_execution(execution.status, ExecutionStatus.RUNNING),
        queued_at=execution.queued_at or started_at,
        started_at=execution.started_at or started_at,
    )
    return Decision(running, next_step=step_id, events=(event,), is_lock_only=True)


def complete(
    execution: Execution,
    lease: Lease,
    output: StepOutput,
    now: datetime,
    timings: Timings,
    *,
    next_token: str | None = None,
    begun_step: str | None = None,
) -> Decision:
    """Complete the step under ``lease`` with its output; raises LeaseLost if the lease is no longer valid.

    The steps that became ready are offered, except one of the same queue: the worker that made ``next_token`` claims
    it in the same write and runs it next (inline continuation). After a cancel or the run's deadline none is. But if
    that worker has begun its next step already, before this was saved, it claims ``begun_step`` in any case.
    """
    step = step_transitions.step_under_lease(execution, lease)
    completed = step_transitions.end_step(
        step,
        StepStatus.COMPLETED,
        now,
        output_bytes=len(output.json),
        output_apart=output.is_external,
        marked=output.marked,
    )
    events = [log_events.step_event(completed, now, "step.completed", f"{completed.id} completed")]
    steps = {**execution.steps, step.id: completed}
    next_step = None
    queue = execution.basket.step(step.id).queue
    is_past_deadline = execution.deadline is not None and execution.deadline <= now
    may_go_on = execution.cancel is None and not is_past_deadline
    for ready_id in step_transitions.newly_ready(execution, steps):
        is_claimable = next_token is not None and next_step is None and execution.basket.step(ready_id).queue == queue
        if next_token is not None and (ready_id == begun_step or (is_claimable and may_go_on and begun_step is None)):
            next_step = ready_id
            ready_step = replace(steps[ready_id], status=transition_step(steps[ready_id].status, StepStatus.READY))
            steps[ready_id] = step_transitions.claim_step(ready_step, next_token, now, timings)
            events.append(log_events.step_started_event(steps[ready_id], now))
        elif may_go_on:
            steps[ready_id] = step_transitions.offer_step(steps[ready_id], now, timings)
    decision = step_transitions.finish_if_done(execution, steps, now, events)
    if is_past_deadline and next_step is None and (expired := expire(decision.execution, now)) is not None:
        return replace(expired, events=(*decision.events, *expired.events), outputs=(output,))
    return replace(
        decision,
        next_step=next_step,
        dispatch=step_transitions.newly_offered(execution, decision.execution),
        outputs=(output,),
    )


def fail(
    execution: Execution,
    lease: Lease,
    error: RunError,
    now: datetime,
    *,
    jitter: float = 1.0,
    at_least: timedelta = timedelta(0),
) -> Decision:
    """Record that the step under ``lease`` failed; raises LeaseLost if the lease is no longer valid.

    A transient failure is retried by the step's policy, after a back-off delay of which ``jitter`` (0 to 1) is the
    part used, and after ``at_least``. Any other failure is final. Nothing is retried after a cancel.
    """
    step = step_transitions.step_under_lease(execution, lease)
    counted = replace(step, failures=step.failures + 1)
    if execution.cancel is not None and error.kind is ErrorKind.CANCELLED:
        return step_transitions.cancel_step(execution, counted, now)
    delay = None
    if error.kind is ErrorKind.TRANSIENT and execution.cancel is None:
        policy = execution.basket.step(step.id).retry
        delay = policy.delay_after(counted.failures, timedelta(milliseconds=step.waited_ms), jitter, at_least)
    if delay is None:
        return step_transitions.fail_step(execution, counted, error, now)
    delay_ms = delay // timedelta(milliseconds=1)
    message = f"{step.id} failed and is tried again in {delay.total_seconds():g} s: {error.message}"
    event = log_events.step_event(
        counted, now, log_events.STEP_RETRYING, message, level="warning", status="retrying",
        error_code=error.error_code, retry_in_ms=delay_ms,
    )  # fmt: skip
    # The token stays: by it the worker recognises its own write if the reply was lost.
    delayed = step_transitions.delay_step(counted, now + delay, waited_ms=step.waited_ms + delay_ms)
    return Decision(step_transitions.with_steps(execution, delayed), events=(event,))


def release(execution: Execution, lease: Lease, now: datetime, timings: Timings, reason: str) -> Decision:
    """Hand a step back (nack) that its worker cannot finish: it is offered again at once, without a failure or a loss.

    Raises LeaseLost if the lease is no longer valid. After a cancel the step ends instead.
    """
    step = step_transitions.step_under_lease(execution, lease)
    if execution.cancel is not None:
        return step_transitions.cancel_step(execution, step, now)
    event = log_events.step_event(step, now, "step.released", f"{step.id} was handed back: {reason}", status="released")
    offered = step_transitions.offer_step(step, now, timings)
    return Decision(step_transitions.with_steps(execution, offered), dispatch=(step.id,), events=(event,))


def release_unknown_agent(
    execution: Execution, lease: Lease, now: datetime, *, lacks_key: str | None = None
) -> Decision:
    """Hand back a step whose agent this worker does not have, with a delay: workers of a newer release may have it.

    It fails an hour after its first hand-back, unless the worker only lacks an encryption key (``lacks_key`` says
    which): an operator can add it at any time. Raises LeaseLost if the lease is no longer valid.
    """
    step = step_transitions.step_under_lease(execution, lease)
    unknown_since = step.stranger_since or step.started_at or now
    if execution.cancel is not None:
        return step_transitions.cancel_step(execution, step, now)
    if lacks_key is None and now - unknown_since >= UNKNOWN_AGENT_TIMEOUT:
        message = f"agent {step.agent!r} is installed on no worker"
        error = RunError("agent_error", message, ErrorKind.LOST, step.agent, step.id, step.claims)
        return step_transitions.fail_step(execution, step, error, now)
    reason = lacks_key or f"this worker has no agent {step.agent}"
    event = log_events.step_event(
        step, now, "step.released", f"{step.id} was handed back: {reason}",
        level="warning", status="released",
    )  # fmt: skip
    until = now + step_transitions.unknown_agent_delay(unknown_since, now)
    delayed = step_transitions.delay_step(step, until, stranger_since=unknown_since)
    return Decision(step_transitions.with_steps(execution, delayed), events=(event,))


def rescue(execution: Execution, step_id: str, now: datetime, timings: Timings) -> Decision | None:
    """Rescue (redeliver) a step that is overdue; None if it is not.

    A ready step is offered (again). A running step has lost its worker: it is offered again too, until it has lost
    ``timings.losses_max`` workers. Then it fails with ``worker_lost``, because a poison step would kill one worker
    after the other for ever. After a cancel a running step ends instead.
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
    event = log_events.step_event(lost, now, "step.worker_lost", message, level="warning", status="lost")
    if lost.losses < timings.losses_max:
        return _reoffer_step(execution, lost, now, timings, (event,))
    message = f"{lost.losses} workers were lost while they ran {step.id}; the last one did not renew its lease"
    error = RunError("worker_lost", message, ErrorKind.LOST, step.agent, step.id, step.claims, retryable=True)
    return replace(step_transitions.fail_step(execution, lost, error, now, (event,)), rescued_step=step.id)


def expire(execution: Execution, now: datetime) -> Decision | None:
    """End a run (timeout) after its deadline, or after its start deadline without a claim; None if neither has passed.

    This does not respect a valid lease: the writes of its holder are refused from then on.
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
    failed_steps = []
    for step in execution.steps.values():
        if step.status is StepStatus.RUNNING:
            error = replace(run_error, agent=step.agent, step=step.id, attempt=step.claims)
            # Without its token, or its worker would take this for its own write whose reply was lost.
            failed_steps.append(step_transitions.end_step(step, StepStatus.FAILED, now, error=error, token=None))
    return _end_run(step_transitions.with_steps(execution, *failed_steps), now, run_error)


def cancel(execution: Execution, now: datetime, reason: str | None = None) -> Decision | None:
    """Request the cancel of a run; None if it is over or a cancel was requested before.

    The steps that are offered or delayed end at once. If no step runs, the run ends too; else the heartbeat of the
    running step finds the request and stops the step. Until then the steps that wait for it keep waiting: its worker
    may have begun the next one already, by a decision that is not saved yet.
    """
    if execution.is_done or execution.cancel is not None:
        return None
    requested = replace(execution, cancel=CancelRequest(now, reason))
    message = f"cancel requested: {reason}" if reason else "cancel requested"
    event = LogEvent(now, "execution.cancel_requested", message, level="warning", status="cancelling")
    if all(step.status is not StepStatus.RUNNING for step in requested.steps.values()):
        return _end_run(requested, now, step_transitions.cancelled_error(requested), (event,))
    ready = [step for step in requested.steps.values() if step.status is StepStatus.READY]
    ended = (step_transitions.end_step(step, StepStatus.CANCELLED, now) for step in ready)
    cancelling = replace(requested, status=transition_execution(requested.status, ExecutionStatus.CANCELLING))
    steps = {**cancelling.steps, **{step.id: step for step in ended}}
    return step_transitions.finish_if_done(cancelling, steps, now, [event])


def _end_run(execution: Execution, now: datetime, error: RunError, events: tuple[LogEvent, ...] = ()) -> Decision:
    status = ExecutionStatus.FAILED if execution.cancel is None else ExecutionStatus.CANCELLED
    ended = replace(
        _end_waiting_steps(execution, now),
        status=transition_execution(execution.status, status),
        finished_at=step_transitions.at_or_after(execution.started_at or execution.created_at, now),
        error=error if execution.cancel is None else step_transitions.cancelled_error(execution),
    )
    message = f"basket {ended.basket.name} {status}: {error.message}"
    event = log_events.run_event(ended, now, f"execution.{status}", message)
    return Decision(ended, events=(*events, event))


def _end_waiting_steps(execution: Execution, now: datetime) -> Execution:
    final = {StepStatus.READY: StepStatus.CANCELLED, StepStatus.WAITING: StepStatus.SKIPPED}
    waiting = [step for step in execution.steps.values() if step.status in final]
    ended = (step_transitions.end_step(step, final[step.status], now) for step in waiting)
    return step_transitions.with_steps(execution, *ended)


def _reoffer_step(
    execution: Execution, step: Step, now: datetime, timings: Timings, events: tuple[LogEvent, ...] = ()
) -> Decision:
    offered = step_transitions.with_steps(execution, step_transitions.offer_step(step, now, timings))
    if execution.status is ExecutionStatus.SCHEDULED:
        offered = replace(offered, status=transition_execution(execution.status, ExecutionStatus.QUEUED), queued_at=now)
        events = (*events, log_events.run_event(offered, now, "execution.queued", "the run's moment has come"))
    return Decision(offered, dispatch=(step.id,), events=events, rescued_step=step.id)
