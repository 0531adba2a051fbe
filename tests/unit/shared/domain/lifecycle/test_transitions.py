"""The transitions of an execution, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from shared.domain.execution import ErrorKind, Execution, RunError
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.timings import Timings, is_overdue
from shared.domain.lifecycle.transitions import cancel, claim, complete, fail, rescue, start
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import LeaseLost
from tests.builders import NOON, SECOND, TIMINGS, accept_decision, claim_decision, unstarted_run

NO = RunError("agent_error", "no", ErrorKind.PERMANENT, agent="a", step="a", attempt=1)


def running(*steps: str) -> Execution:
    decision = accept_decision(*steps)
    return claim_decision(decision.execution, steps[0]).execution


def done(execution: Execution, step: str, token: str | None = None) -> Decision:
    return complete(
        execution, execution.lease_of(step), StepOutput(step, b"{}"), NOON + SECOND, TIMINGS, next_token=token
    )


def test_an_accepted_run_offers_its_first_step_and_no_other() -> None:
    decision = accept_decision("a", "b")
    assert decision.dispatch == ("a",)
    assert decision.execution.status is ExecutionStatus.QUEUED
    assert decision.execution.steps["a"].due_by == NOON + TIMINGS.handoff
    assert decision.execution.steps["b"].status is StepStatus.WAITING
    assert [event.event for event in decision.events] == ["execution.accepted"]


def test_steps_without_needs_are_all_offered_at_once() -> None:
    run = unstarted_run("a", "b")
    free = replace(run, basket=replace(run.basket, steps=tuple(replace(step, needs=()) for step in run.basket.steps)))
    assert start(free, NOON, TIMINGS).dispatch == ("a", "b")


def test_a_claim_makes_a_lease_and_starts_the_run() -> None:
    execution = running("a")
    assert execution.status is ExecutionStatus.RUNNING
    assert execution.started_at == NOON
    assert execution.due_by == NOON + TIMINGS.lease
    assert (execution.steps["a"].claims, execution.steps["a"].token) == (1, "token-1")


@pytest.mark.parametrize("step", ["a", "b", "nowhere", "a.b", "$a"])
def test_only_a_ready_step_can_be_claimed(step: str) -> None:
    assert claim(running("a", "b"), step, "token-2", NOON, TIMINGS) is None


def test_a_final_run_can_neither_be_claimed_nor_rescued() -> None:
    execution = done(running("a"), "a").execution
    assert claim(execution, "a", "token-2", NOON, TIMINGS) is None
    assert rescue(execution, "a", NOON + timedelta(days=1), TIMINGS) is None


def test_completing_a_step_claims_the_next_one_for_the_same_worker() -> None:
    decision = done(running("a", "b", "c"), "a", token="token-2")
    assert decision.next_step == "b"
    assert decision.dispatch == ()
    assert decision.execution.steps["b"].token == "token-2"
    assert decision.execution.steps["c"].status is StepStatus.WAITING


def test_the_step_that_a_worker_has_begun_is_claimed_although_others_have_become_ready_meanwhile() -> None:
    run = unstarted_run("a", "c", "join", "b")
    needs = {"a": (), "c": (), "join": ("a", "c"), "b": ("a",)}
    steps = tuple(replace(step, needs=needs[step.id]) for step in run.basket.steps)
    started = start(replace(run, basket=replace(run.basket, steps=steps)), NOON, TIMINGS).execution
    execution = claim_decision(claim_decision(started, "a").execution, "c").execution
    alone = done(execution, "a", token="token-2")
    assert alone.next_step == "b"
    meanwhile = done(execution, "c").execution
    output = StepOutput("a", b"{}")
    lease = meanwhile.lease_of("a")
    again = complete(meanwhile, lease, output, NOON + SECOND, TIMINGS, next_token="token-2", begun_step="b")
    assert (again.next_step, again.dispatch) == ("b", ("join",))


def test_after_a_cancel_only_a_step_that_has_begun_goes_on() -> None:
    cancelled = cancel(running("a", "b"), NOON + SECOND)
    assert cancelled is not None
    execution = cancelled.execution
    assert execution.steps["b"].status is StepStatus.WAITING
    ended = done(execution, "a", token="token-2").execution
    assert (ended.status, ended.steps["b"].status) == (ExecutionStatus.CANCELLED, StepStatus.SKIPPED)
    output, lease = StepOutput("a", b"{}"), execution.lease_of("a")
    begun = complete(execution, lease, output, NOON + SECOND, TIMINGS, next_token="token-2", begun_step="b")
    assert begun.next_step == "b"
    assert (begun.execution.status, begun.execution.steps["b"].status) == (
        ExecutionStatus.CANCELLING,
        StepStatus.RUNNING,
    )


def test_without_a_token_the_next_step_is_handed_out() -> None:
    decision = done(running("a", "b"), "a")
    assert (decision.next_step, decision.dispatch) == (None, ("b",))
    assert decision.execution.steps["b"].offered_at == NOON + SECOND


def test_a_step_of_another_queue_is_handed_out() -> None:
    execution = running("a", "b")
    first, second = execution.basket.steps
    basket = replace(execution.basket, steps=(first, replace(second, queue="long")))
    decision = done(replace(execution, basket=basket), "a", token="token-2")
    assert (decision.next_step, decision.dispatch) == (None, ("b",))


def test_a_worker_goes_on_with_one_step_and_hands_out_the_others() -> None:
    execution = running("a", "b", "c")
    a, b, c = execution.basket.steps
    fan = replace(execution, basket=replace(execution.basket, steps=(a, b, replace(c, needs=("a",)))))
    decision = done(fan, "a", token="token-2")
    assert (decision.next_step, decision.dispatch) == ("b", ("c",))


def test_the_last_step_completes_the_run() -> None:
    decision = done(running("a"), "a")
    assert decision.execution.status is ExecutionStatus.COMPLETED
    assert decision.execution.finished_at == NOON + SECOND
    assert decision.execution.due_by is None
    assert decision.execution.steps["a"].duration_ms == 1_000


@pytest.mark.parametrize("end", ["completes", "fails", "is cancelled"])
def test_nothing_ends_before_it_began_although_another_clock_says_so(end: str) -> None:
    """Each of two processes has read the store's clock for itself, one of them late."""
    run = claim_decision(accept_decision("a").execution, "a", now=NOON - SECOND).execution
    assert run.started_at == run.created_at == NOON
    run = claim_decision(accept_decision("a").execution, "a", now=NOON + SECOND).execution
    if end == "completes":
        ended = complete(run, run.lease_of("a"), StepOutput("a", b"{}"), NOON, TIMINGS).execution
    elif end == "fails":
        ended = fail(run, run.lease_of("a"), RunError("x", "wrong", ErrorKind.PERMANENT), NOON).execution
    else:
        cancelled = cancel(accept_decision("a", created_at=NOON + SECOND).execution, NOON)
        assert cancelled is not None
        ended = cancelled.execution
    assert ended.finished_at == NOON + SECOND
    assert ended.steps["a"].duration_ms in {0, None}
    assert (ended.steps["a"].duration_ms is None) == (end == "is cancelled")


def test_a_failed_step_fails_the_run_and_skips_what_needed_it() -> None:
    execution = running("a", "b", "c")
    decision = fail(execution, execution.lease_of("a"), NO, NOON + SECOND)
    assert decision.execution.status is ExecutionStatus.FAILED
    assert decision.execution.error == NO
    assert [step.status for step in decision.execution.steps.values()] == [
        StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.SKIPPED,
    ]  # fmt: skip
    assert decision.execution.steps["a"].failures == 1


def test_branches_that_can_still_run_finish_before_a_failed_run_ends() -> None:
    execution = running("a", "b")
    a, b = execution.basket.steps
    apart = replace(execution, basket=replace(execution.basket, steps=(a, replace(b, needs=()))))
    ready = replace(apart, steps={**apart.steps, "b": replace(apart.steps["b"], status=StepStatus.READY)})
    both = claim_decision(ready, "b", "token-2").execution
    failed = fail(both, both.lease_of("a"), NO, NOON + SECOND).execution
    assert failed.status is ExecutionStatus.RUNNING
    ended = complete(failed, failed.lease_of("b"), StepOutput("b", b"{}"), NOON + 2 * SECOND, TIMINGS).execution
    assert (ended.status, ended.error) == (ExecutionStatus.FAILED, NO)
    assert ended.steps["b"].status is StepStatus.COMPLETED


@pytest.mark.parametrize("changes", [{"claim": 2}, {"token": "another"}, {"step": "b"}, {"step": "nowhere"}], ids=str)
def test_another_lease_writes_nothing(changes: dict[str, object]) -> None:
    execution = running("a", "b")
    wrong = replace(execution.lease_of("a"), **changes)  # type: ignore[arg-type]
    with pytest.raises(LeaseLost):
        complete(execution, wrong, StepOutput("a", b"{}"), NOON, TIMINGS)
    with pytest.raises(LeaseLost):
        fail(execution, wrong, NO, NOON)


def test_nothing_is_rescued_before_it_is_due() -> None:
    queued = accept_decision("a").execution
    assert rescue(queued, "a", NOON + TIMINGS.handoff - SECOND, TIMINGS) is None
    assert rescue(running("a"), "a", NOON + TIMINGS.lease - SECOND, TIMINGS) is None


def test_a_step_that_was_not_claimed_is_offered_again_without_a_log_line() -> None:
    late = NOON + TIMINGS.handoff
    decision = rescue(accept_decision("a").execution, "a", late, TIMINGS)
    assert decision is not None
    step = decision.execution.steps["a"]
    assert (decision.dispatch, decision.events, decision.rescued_step) == (("a",), (), "a")
    assert (step.offers, step.offered_at, step.due_by) == (2, late, late + 2 * TIMINGS.handoff)
    assert (step.losses, step.claims) == (0, 0)


def test_a_lost_worker_costs_a_loss_and_the_step_is_offered_at_once() -> None:
    late = NOON + TIMINGS.lease
    decision = rescue(running("a"), "a", late, TIMINGS)
    assert decision is not None
    step = decision.execution.steps["a"]
    assert decision.execution.status is ExecutionStatus.RUNNING
    assert (step.status, step.losses, step.failures, step.token) == (StepStatus.READY, 1, 0, None)
    assert decision.dispatch == ("a",)
    assert [event.event for event in decision.events] == ["step.worker_lost"]


def test_the_third_loss_fails_the_step() -> None:
    execution, now = running("a"), NOON
    for number in range(3):
        now += TIMINGS.lease
        decision = rescue(execution, "a", now, TIMINGS)
        assert decision is not None
        execution = decision.execution
        if number < 2:
            execution = claim_decision(execution, "a", f"token-{number}", now).execution
    assert execution.status is ExecutionStatus.FAILED
    assert execution.error is not None
    assert (execution.error.error_code, execution.error.kind, execution.error.retryable) == (
        "worker_lost", ErrorKind.LOST, True,
    )  # fmt: skip
    assert decision.rescued_step == "a"


def test_hand_offs_double_to_a_minute() -> None:
    waits = [TIMINGS.handoff_timeout(offers).total_seconds() for offers in (1, 2, 3, 4, 5, 6, 100)]
    assert waits == [5, 10, 20, 40, 60, 60, 60]


def test_a_hand_off_longer_than_a_minute_stays_as_it_was_set() -> None:
    assert Timings(handoff=timedelta(minutes=5)).handoff_timeout(9) == timedelta(minutes=5)


def test_a_due_moment_that_no_clock_could_have_set_is_due() -> None:
    execution = running("a")
    step = execution.steps["a"]
    assert not is_overdue(execution, step, NOON, TIMINGS)
    assert is_overdue(execution, step, NOON - timedelta(hours=1), TIMINGS)
    assert is_overdue(execution, step, NOON + TIMINGS.lease, TIMINGS)


def test_a_writer_recognises_its_own_write_by_the_token_after_the_step_has_ended() -> None:
    execution = running("a")
    lease = execution.lease_of("a")
    mine = done(execution, "a").execution.steps["a"]
    assert mine.matches_lease(lease)
    assert not mine.is_running_under(lease)
    lost = rescue(execution, "a", NOON + TIMINGS.lease, TIMINGS)
    assert lost is not None
    assert not lost.execution.steps["a"].matches_lease(lease)


@pytest.mark.parametrize(("kind", "is_dead_letter"), [("basket", True), ("agent", True), ("inline", False)])
def test_an_inline_graph_that_makes_an_input_wrong_is_no_dead_letter(kind: str, *, is_dead_letter: bool) -> None:
    error = RunError("input_invalid", "no", ErrorKind.PERMANENT, "a", "a", 1)
    execution = replace(running("a"), kind=kind)
    failed = fail(execution, execution.lease_of("a"), error, NOON).execution
    assert failed.dead_letter is is_dead_letter
    lost = replace(error, error_code="worker_lost", kind=ErrorKind.LOST)
    assert fail(execution, execution.lease_of("a"), lost, NOON).execution.dead_letter
