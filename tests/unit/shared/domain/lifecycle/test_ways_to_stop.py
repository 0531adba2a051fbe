"""Retries, releases, schedules, deadlines and cancels, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from shared.domain.definitions.retry_policy import NAMED_RETRY_POLICIES, RetryPolicy, parse_retry_policy
from shared.domain.execution import CancelRequest, ErrorKind, Execution, RunError
from shared.domain.lifecycle.decision import StepOutput
from shared.domain.lifecycle.transitions import (
    cancel,
    claim,
    complete,
    expire,
    fail,
    release,
    release_unknown_agent,
    rescue,
)
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import LeaseLost, SpecError
from tests.builders import NOON, SECOND, TIMINGS, accept_decision, claim_decision

PASSING = RunError("agent_error", "the network", ErrorKind.TRANSIENT, agent="a", step="a", attempt=1, retryable=True)
FOR_GOOD = RunError("agent_error", "no", ErrorKind.PERMANENT, agent="a", step="a", attempt=1)
CALLED_OFF = RunError("cancelled", "by request", ErrorKind.CANCELLED, agent="a", step="a", attempt=1)


def running(*steps: str, **changes: object) -> Execution:
    return claim_decision(accept_decision(*steps, **changes).execution, steps[0]).execution


def failed(execution: Execution, error: RunError = PASSING, chance: float = 1.0, after_s: int = 0) -> Execution:
    step = next(step.id for step in execution.steps.values() if step.status is StepStatus.RUNNING)
    return fail(execution, execution.lease_of(step), error, NOON + after_s * SECOND, jitter=chance).execution


def test_a_transient_failure_is_delayed_and_offered_again_at_its_time() -> None:
    execution = failed(running("a", "b"))
    step = execution.steps["a"]
    assert (execution.status, step.status, step.failures, step.is_delayed) == (
        ExecutionStatus.RUNNING, StepStatus.READY, 1, True,
    )  # fmt: skip
    assert step.due_by == NOON + SECOND
    assert claim(execution, "a", "token-2", NOON, TIMINGS) is None
    assert rescue(execution, "a", NOON, TIMINGS) is None
    again = rescue(execution, "a", NOON + SECOND, TIMINGS)
    assert again is not None
    assert again.dispatch == ("a",)
    assert claim(again.execution, "a", "token-2", NOON + SECOND, TIMINGS) is not None


def test_a_task_message_that_comes_after_the_delay_need_not_wait_for_the_offer() -> None:
    assert claim(failed(running("a")), "a", "token-2", NOON + SECOND, TIMINGS) is not None


def test_the_third_transient_failure_is_for_good_and_a_dead_letter() -> None:
    execution = running("a")
    for number in range(2):
        execution = failed(execution)
        later = NOON + (number + 1) * 60 * SECOND
        execution = claim_decision(execution, "a", f"token-{number}", later).execution
    ended = failed(execution)
    assert (ended.status, ended.dead_letter) == (ExecutionStatus.FAILED, True)
    assert ended.steps["a"].failures == 3


def test_a_permanent_failure_is_never_tried_again_and_is_no_dead_letter() -> None:
    ended = failed(running("a"), FOR_GOOD)
    assert (ended.status, ended.dead_letter) == (ExecutionStatus.FAILED, False)


def test_an_output_that_broke_its_schema_is_a_dead_letter() -> None:
    assert failed(running("a"), replace(FOR_GOOD, error_code="output_invalid")).dead_letter


def test_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    policy = NAMED_RETRY_POLICIES["critical"]
    delays = [policy.delay_after(failures, timedelta(0), 1.0) for failures in range(1, 6)]
    assert [None if rest is None else rest.total_seconds() for rest in delays] == [0.5, 0.75, 1.125, 1.687, None]
    long = RetryPolicy(attempts=10)
    assert long.delay_after(9, timedelta(0), 1.0) == timedelta(seconds=30)


def test_jitter_takes_a_part_of_the_whole_wait() -> None:
    assert NAMED_RETRY_POLICIES["default"].delay_after(2, timedelta(0), 0.25) == timedelta(milliseconds=500)
    assert NAMED_RETRY_POLICIES["default"].delay_after(2, timedelta(0), 0.0) == timedelta(0)


def test_delays_sum_to_no_more_than_the_budget() -> None:
    policy = RetryPolicy(attempts=100, wait_s=30)
    assert policy.delay_after(1, timedelta(seconds=30), 1.0) == timedelta(seconds=30)
    assert policy.delay_after(1, timedelta(seconds=31), 1.0) is None


def test_a_wait_that_the_failure_asks_for_comes_before_the_back_off_and_counts_for_the_budget() -> None:
    policy = NAMED_RETRY_POLICIES["default"]
    assert policy.delay_after(1, timedelta(0), 0.5, timedelta(seconds=20)) == timedelta(seconds=20.5)
    assert policy.delay_after(1, timedelta(0), 0.5, timedelta(seconds=60)) is None
    waiting = running("a")
    spent = replace(waiting, steps={"a": replace(waiting.steps["a"], waited_ms=60_000)})
    assert failed(spent).status is ExecutionStatus.FAILED


@pytest.mark.parametrize(
    "raw",
    ["often", 3, {"attempts": 0}, {"attempts": 1.5}, {"attempts": True}, {"tries": 3}, {"wait_s": -1}, {"factor": "2"}],
    ids=str,
)
def test_a_wrong_policy_is_refused(raw: object) -> None:
    with pytest.raises(SpecError, match="retry"):
        parse_retry_policy(raw)  # type: ignore[arg-type]


def test_a_policy_may_be_written_out() -> None:
    assert parse_retry_policy({"attempts": 7, "wait_s": 0.1}) == RetryPolicy(attempts=7, wait_s=0.1)
    assert parse_retry_policy("none").attempts == 1


def test_a_step_handed_back_is_offered_at_once_and_is_no_loss() -> None:
    execution = running("a")
    decision = release(execution, execution.lease_of("a"), NOON + SECOND, TIMINGS, "the worker drains")
    step = decision.execution.steps["a"]
    assert (decision.dispatch, step.status, step.losses, step.failures) == (("a",), StepStatus.READY, 0, 0)
    assert step.matches_lease(execution.lease_of("a"))
    assert decision.execution.status is ExecutionStatus.RUNNING


def test_a_step_that_no_worker_knows_is_delayed_ever_longer_and_fails_after_an_hour() -> None:
    execution, now, delays = running("a"), NOON, []
    while not execution.is_done:
        decision = release_unknown_agent(execution, execution.lease_of("a"), now)
        execution = decision.execution
        if execution.is_done:
            break
        due_by = execution.steps["a"].due_by
        assert due_by is not None
        delays.append((due_by - now).total_seconds())
        now = due_by
        execution = claim_decision(execution, "a", f"token-{len(delays)}", now).execution
    assert delays[:4] == [5, 5, 10, 20]
    assert max(delays) == 60
    assert now - NOON >= timedelta(hours=1)
    assert execution.error is not None
    assert (execution.error.error_code, execution.dead_letter) == ("agent_error", True)


def test_a_run_for_later_is_scheduled_until_its_moment() -> None:
    later = NOON + timedelta(hours=2)
    decision = accept_decision("a", "b", run_after=later)
    run = decision.execution
    assert (run.status, decision.dispatch, run.due_by, run.queued_at) == (ExecutionStatus.SCHEDULED, (), later, None)
    assert claim(run, "a", "token-1", NOON, TIMINGS) is None
    assert rescue(run, "a", later - SECOND, TIMINGS) is None
    promoted = rescue(run, "a", later, TIMINGS)
    assert promoted is not None
    assert (promoted.execution.status, promoted.dispatch) == (ExecutionStatus.QUEUED, ("a",))
    assert promoted.execution.queued_at == later
    assert [event.event for event in promoted.events] == ["execution.queued"]


def test_a_moment_in_the_past_runs_now() -> None:
    assert accept_decision("a", run_after=NOON).execution.status is ExecutionStatus.QUEUED


def test_a_run_not_begun_by_its_start_deadline_fails() -> None:
    run = accept_decision("a", start_deadline=NOON + SECOND).execution
    assert run.due_by == NOON + SECOND
    assert expire(run, NOON) is None
    decision = expire(run, NOON + SECOND)
    assert decision is not None
    assert decision.execution.error is not None
    assert decision.execution.error.error_code == "start_deadline_exceeded"
    assert decision.execution.status is ExecutionStatus.FAILED


def test_a_run_once_begun_does_not_mind_its_start_deadline() -> None:
    begun = running("a", start_deadline=NOON + SECOND)
    assert expire(begun, NOON + timedelta(hours=1)) is None
    assert begun.due_by == NOON + TIMINGS.lease


def test_a_deadline_ends_a_run_whose_lease_still_lives() -> None:
    run = running("a", "b", deadline=NOON + SECOND)
    assert run.due_by == NOON + SECOND
    decision = expire(run, NOON + SECOND)
    assert decision is not None
    ended = decision.execution
    assert [step.status for step in ended.steps.values()] == [StepStatus.FAILED, StepStatus.SKIPPED]
    assert ended.error is not None
    assert (ended.error.error_code, ended.error.kind) == ("deadline_exceeded", ErrorKind.TIMEOUT)
    with pytest.raises(LeaseLost):
        complete(ended, run.lease_of("a"), StepOutput("a", b"{}"), NOON + SECOND, TIMINGS)


def test_a_claim_past_a_deadline_expires_instead() -> None:
    run = accept_decision("a", deadline=NOON + SECOND).execution
    decision = claim(run, "a", "token-1", NOON + SECOND, TIMINGS)
    assert decision is not None
    assert (decision.next_step, decision.is_lock_only) == (None, False)
    assert decision.execution.status is ExecutionStatus.FAILED


def test_a_run_that_does_not_run_is_cancelled_at_once() -> None:
    decision = cancel(accept_decision("a", "b").execution, NOON + SECOND, "no need")
    assert decision is not None
    ended = decision.execution
    assert (ended.status, ended.cancel) == (ExecutionStatus.CANCELLED, CancelRequest(NOON + SECOND, "no need"))
    assert [step.status for step in ended.steps.values()] == [StepStatus.CANCELLED, StepStatus.SKIPPED]
    assert ended.error is not None
    assert (ended.error.error_code, ended.error.message) == ("cancelled", "cancelled: no need")


def test_a_run_that_waits_between_attempts_is_cancelled_at_once() -> None:
    decision = cancel(failed(running("a")), NOON + SECOND)
    assert decision is not None
    assert decision.execution.status is ExecutionStatus.CANCELLED


def cancelling(*steps: str) -> Execution:
    decision = cancel(running(*steps), NOON + SECOND, "enough")
    assert decision is not None
    assert decision.execution.status is ExecutionStatus.CANCELLING
    return decision.execution


def test_a_step_that_completes_under_a_cancel_is_recorded_and_the_run_is_cancelled() -> None:
    run = cancelling("a", "b")
    decision = complete(run, run.lease_of("a"), StepOutput("a", b"{}"), NOON + SECOND, TIMINGS, next_token="token-2")
    assert (decision.next_step, decision.dispatch) == (None, ())
    assert decision.execution.status is ExecutionStatus.CANCELLED
    assert decision.execution.steps["a"].status is StepStatus.COMPLETED


def test_a_cancel_that_comes_when_nothing_is_left_to_do_leaves_the_run_completed() -> None:
    run = cancelling("a")
    decision = complete(run, run.lease_of("a"), StepOutput("a", b"{}"), NOON + SECOND, TIMINGS)
    assert (decision.execution.status, decision.execution.error) == (ExecutionStatus.COMPLETED, None)


@pytest.mark.parametrize("error", [PASSING, FOR_GOOD, CALLED_OFF], ids=lambda error: error.kind)
def test_nothing_is_tried_again_under_a_cancel(error: RunError) -> None:
    ended = failed(cancelling("a", "b"), error)
    assert ended.status is ExecutionStatus.CANCELLED
    assert ended.error is not None
    assert ended.error.error_code == "cancelled"


def test_a_worker_lost_under_a_cancel_ends_the_run() -> None:
    decision = rescue(cancelling("a", "b"), "a", NOON + TIMINGS.lease, TIMINGS)
    assert decision is not None
    assert decision.execution.status is ExecutionStatus.CANCELLED


def test_a_step_handed_back_under_a_cancel_ends_the_run() -> None:
    run = cancelling("a", "b")
    decision = release(run, run.lease_of("a"), NOON + SECOND, TIMINGS, "drains")
    assert (decision.execution.status, decision.dispatch) == (ExecutionStatus.CANCELLED, ())


def test_a_second_cancel_and_one_of_a_final_run_change_nothing() -> None:
    assert cancel(cancelling("a"), NOON + 2 * SECOND) is None
    ended = cancel(accept_decision("a").execution, NOON)
    assert ended is not None
    assert cancel(ended.execution, NOON + SECOND) is None


def test_a_deadline_under_a_cancel_ends_the_run_as_cancelled() -> None:
    run = running("a", "b", deadline=NOON + 2 * SECOND)
    cancelled = cancel(run, NOON + SECOND)
    assert cancelled is not None
    decision = expire(cancelled.execution, NOON + 2 * SECOND)
    assert decision is not None
    assert decision.execution.status is ExecutionStatus.CANCELLED
