"""Retries, hand-backs, schedules, deadlines and cancels, one by one."""

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
from tests.builders import NOON, SECOND, TERMS, accepted, claimed

PASSING = RunError("agent_error", "the network", ErrorKind.TRANSIENT, agent="a", step="a", attempt=1, retryable=True)
FOR_GOOD = RunError("agent_error", "no", ErrorKind.PERMANENT, agent="a", step="a", attempt=1)
CALLED_OFF = RunError("cancelled", "by request", ErrorKind.CANCELLED, agent="a", step="a", attempt=1)


def running(*steps: str, **changes: object) -> Execution:
    return claimed(accepted(*steps, **changes).execution, steps[0]).execution


def failed(execution: Execution, error: RunError = PASSING, chance: float = 1.0, after_s: int = 0) -> Execution:
    step = next(step.id for step in execution.steps.values() if step.status is StepStatus.RUNNING)
    return fail(execution, execution.lease_of(step), error, NOON + after_s * SECOND, jitter=chance).execution


def test_a_transient_failure_rests_and_is_offered_again_at_its_moment() -> None:
    execution = failed(running("a", "b"))
    step = execution.steps["a"]
    assert (execution.status, step.status, step.failures, step.is_delayed) == (
        ExecutionStatus.RUNNING, StepStatus.READY, 1, True,
    )  # fmt: skip
    assert step.due_by == NOON + SECOND
    assert claim(execution, "a", "token-2", NOON, TERMS) is None
    assert rescue(execution, "a", NOON, TERMS) is None
    again = rescue(execution, "a", NOON + SECOND, TERMS)
    assert again is not None
    assert again.dispatch == ("a",)
    assert claim(again.execution, "a", "token-2", NOON + SECOND, TERMS) is not None


def test_a_bell_that_comes_after_the_rest_need_not_wait_for_the_offer() -> None:
    assert claim(failed(running("a")), "a", "token-2", NOON + SECOND, TERMS) is not None


def test_the_third_transient_failure_is_for_good_and_a_dead_letter() -> None:
    execution = running("a")
    for number in range(2):
        execution = failed(execution)
        later = NOON + (number + 1) * 60 * SECOND
        execution = claimed(execution, "a", f"token-{number}", later).execution
    over = failed(execution)
    assert (over.status, over.dead_letter) == (ExecutionStatus.FAILED, True)
    assert over.steps["a"].failures == 3


def test_a_permanent_failure_is_never_tried_again_and_is_no_dead_letter() -> None:
    over = failed(running("a"), FOR_GOOD)
    assert (over.status, over.dead_letter) == (ExecutionStatus.FAILED, False)


def test_an_output_that_broke_its_schema_is_a_dead_letter() -> None:
    assert failed(running("a"), replace(FOR_GOOD, error_code="output_invalid")).dead_letter


def test_rests_grow_by_the_factor_up_to_the_maximum() -> None:
    policy = NAMED_RETRY_POLICIES["critical"]
    rests = [policy.delay_after(failures, timedelta(0), 1.0) for failures in range(1, 6)]
    assert [None if rest is None else rest.total_seconds() for rest in rests] == [0.5, 0.75, 1.125, 1.687, None]
    long = RetryPolicy(attempts=10)
    assert long.delay_after(9, timedelta(0), 1.0) == timedelta(seconds=30)


def test_jitter_takes_a_part_of_the_whole_wait() -> None:
    assert NAMED_RETRY_POLICIES["default"].delay_after(2, timedelta(0), 0.25) == timedelta(milliseconds=500)
    assert NAMED_RETRY_POLICIES["default"].delay_after(2, timedelta(0), 0.0) == timedelta(0)


def test_rests_sum_to_no_more_than_the_budget() -> None:
    policy = RetryPolicy(attempts=100, wait_s=30)
    assert policy.delay_after(1, timedelta(seconds=30), 1.0) == timedelta(seconds=30)
    assert policy.delay_after(1, timedelta(seconds=31), 1.0) is None
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
    advance = release(execution, execution.lease_of("a"), NOON + SECOND, TERMS, "the worker drains")
    step = advance.execution.steps["a"]
    assert (advance.dispatch, step.status, step.losses, step.failures) == (("a",), StepStatus.READY, 0, 0)
    assert step.matches_lease(execution.lease_of("a"))
    assert advance.execution.status is ExecutionStatus.RUNNING


def test_a_step_that_no_worker_knows_rests_ever_longer_and_fails_after_an_hour() -> None:
    execution, now, rests = running("a"), NOON, []
    while not execution.is_done:
        advance = release_unknown_agent(execution, execution.lease_of("a"), now)
        execution = advance.execution
        if execution.is_done:
            break
        due_by = execution.steps["a"].due_by
        assert due_by is not None
        rests.append((due_by - now).total_seconds())
        now = due_by
        execution = claimed(execution, "a", f"token-{len(rests)}", now).execution
    assert rests[:4] == [5, 5, 10, 20]
    assert max(rests) == 60
    assert now - NOON >= timedelta(hours=1)
    assert execution.error is not None
    assert (execution.error.error_code, execution.dead_letter) == ("agent_error", True)


def test_a_run_for_later_is_scheduled_until_its_moment() -> None:
    later = NOON + timedelta(hours=2)
    advance = accepted("a", "b", run_after=later)
    run = advance.execution
    assert (run.status, advance.dispatch, run.due_by, run.queued_at) == (ExecutionStatus.SCHEDULED, (), later, None)
    assert claim(run, "a", "token-1", NOON, TERMS) is None
    assert rescue(run, "a", later - SECOND, TERMS) is None
    promoted = rescue(run, "a", later, TERMS)
    assert promoted is not None
    assert (promoted.execution.status, promoted.dispatch) == (ExecutionStatus.QUEUED, ("a",))
    assert promoted.execution.queued_at == later
    assert [event.event for event in promoted.events] == ["execution.queued"]


def test_a_moment_in_the_past_runs_now() -> None:
    assert accepted("a", run_after=NOON).execution.status is ExecutionStatus.QUEUED


def test_a_run_not_begun_by_its_start_deadline_fails() -> None:
    run = accepted("a", start_deadline=NOON + SECOND).execution
    assert run.due_by == NOON + SECOND
    assert expire(run, NOON) is None
    advance = expire(run, NOON + SECOND)
    assert advance is not None
    assert advance.execution.error is not None
    assert advance.execution.error.error_code == "start_deadline_exceeded"
    assert advance.execution.status is ExecutionStatus.FAILED


def test_a_run_once_begun_does_not_mind_its_start_deadline() -> None:
    begun = running("a", start_deadline=NOON + SECOND)
    assert expire(begun, NOON + timedelta(hours=1)) is None
    assert begun.due_by == NOON + TERMS.lease


def test_a_deadline_ends_a_run_whose_lease_still_lives() -> None:
    run = running("a", "b", deadline=NOON + SECOND)
    assert run.due_by == NOON + SECOND
    advance = expire(run, NOON + SECOND)
    assert advance is not None
    over = advance.execution
    assert [step.status for step in over.steps.values()] == [StepStatus.FAILED, StepStatus.SKIPPED]
    assert over.error is not None
    assert (over.error.error_code, over.error.kind) == ("deadline_exceeded", ErrorKind.TIMEOUT)
    with pytest.raises(LeaseLost):
        complete(over, run.lease_of("a"), StepOutput("a", b"{}"), NOON + SECOND, TERMS)


def test_a_claim_past_a_deadline_expires_instead() -> None:
    run = accepted("a", deadline=NOON + SECOND).execution
    advance = claim(run, "a", "token-1", NOON + SECOND, TERMS)
    assert advance is not None
    assert (advance.next_step, advance.is_lock_only) == (None, False)
    assert advance.execution.status is ExecutionStatus.FAILED


def test_a_run_that_does_not_run_is_cancelled_at_once() -> None:
    advance = cancel(accepted("a", "b").execution, NOON + SECOND, "no need")
    assert advance is not None
    over = advance.execution
    assert (over.status, over.cancel) == (ExecutionStatus.CANCELLED, CancelRequest(NOON + SECOND, "no need"))
    assert [step.status for step in over.steps.values()] == [StepStatus.CANCELLED, StepStatus.SKIPPED]
    assert over.error is not None
    assert (over.error.error_code, over.error.message) == ("cancelled", "cancelled: no need")


def test_a_run_that_rests_between_attempts_is_cancelled_at_once() -> None:
    advance = cancel(failed(running("a")), NOON + SECOND)
    assert advance is not None
    assert advance.execution.status is ExecutionStatus.CANCELLED


def cancelling(*steps: str) -> Execution:
    advance = cancel(running(*steps), NOON + SECOND, "enough")
    assert advance is not None
    assert advance.execution.status is ExecutionStatus.CANCELLING
    return advance.execution


def test_a_step_that_completes_under_a_cancel_is_recorded_and_the_run_is_cancelled() -> None:
    run = cancelling("a", "b")
    advance = complete(run, run.lease_of("a"), StepOutput("a", b"{}"), NOON + SECOND, TERMS, next_token="token-2")
    assert (advance.next_step, advance.dispatch) == (None, ())
    assert advance.execution.status is ExecutionStatus.CANCELLED
    assert advance.execution.steps["a"].status is StepStatus.COMPLETED


def test_a_cancel_that_comes_when_nothing_is_left_to_do_leaves_the_run_completed() -> None:
    run = cancelling("a")
    advance = complete(run, run.lease_of("a"), StepOutput("a", b"{}"), NOON + SECOND, TERMS)
    assert (advance.execution.status, advance.execution.error) == (ExecutionStatus.COMPLETED, None)


@pytest.mark.parametrize("error", [PASSING, FOR_GOOD, CALLED_OFF], ids=lambda error: error.kind)
def test_nothing_is_tried_again_under_a_cancel(error: RunError) -> None:
    over = failed(cancelling("a", "b"), error)
    assert over.status is ExecutionStatus.CANCELLED
    assert over.error is not None
    assert over.error.error_code == "cancelled"


def test_a_worker_lost_under_a_cancel_ends_the_run() -> None:
    advance = rescue(cancelling("a", "b"), "a", NOON + TERMS.lease, TERMS)
    assert advance is not None
    assert advance.execution.status is ExecutionStatus.CANCELLED


def test_a_step_handed_back_under_a_cancel_ends_the_run() -> None:
    run = cancelling("a", "b")
    advance = release(run, run.lease_of("a"), NOON + SECOND, TERMS, "drains")
    assert (advance.execution.status, advance.dispatch) == (ExecutionStatus.CANCELLED, ())


def test_a_second_cancel_and_one_of_a_final_run_change_nothing() -> None:
    assert cancel(cancelling("a"), NOON + 2 * SECOND) is None
    over = cancel(accepted("a").execution, NOON)
    assert over is not None
    assert cancel(over.execution, NOON + SECOND) is None


def test_a_deadline_under_a_cancel_ends_the_run_as_cancelled() -> None:
    run = running("a", "b", deadline=NOON + 2 * SECOND)
    asked = cancel(run, NOON + SECOND)
    assert asked is not None
    advance = expire(asked.execution, NOON + 2 * SECOND)
    assert advance is not None
    assert advance.execution.status is ExecutionStatus.CANCELLED
