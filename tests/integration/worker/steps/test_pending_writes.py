"""Write-behind: quick steps share a write, and nothing else is delayed: no slow step, no loss, no cancel."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.transitions import cancel, claim, rescue
from shared.domain.status import ExecutionStatus, StepStatus
from shared.live.render import parse_header
from shared.live.signals import cancel_hints
from tests.integration.worker.conftest import WorkerHarness
from tests.waiting import wait_until
from worker.context import AgentContext
from worker.steps.claims import ClaimedStep
from worker.steps.pending_writes import PendingWrites


def statuses(bench: WorkerHarness, run: Execution) -> list[str]:
    return [str(step.status) for step in bench.read(run).execution.steps.values()]


class Gate:
    """An agent that waits until a test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def run(self, given: dict[str, Any], _: AgentContext) -> Any:
        self.entered.set()
        assert self.open.wait(10)
        return given


def run_beside(bench: WorkerHarness, run: Execution, **agents: Any) -> threading.Thread:
    thread = threading.Thread(target=bench.runner(**agents).run_message, args=(bench.message_of(run),), daemon=True)
    thread.start()
    return thread


def test_a_step_before_a_slow_one_is_saved_and_published_while_that_runs(
    bench: WorkerHarness, *, either_way: bool
) -> None:
    run, gate = bench.accept("echo", "memo"), Gate()
    thread = run_beside(bench, run, memo=gate.run)
    assert gate.entered.wait(5)
    wait_until(lambda: statuses(bench, run) == ["completed", "running"], what="the first step is saved")
    wait_until(
        lambda: b'"steps_completed":1' in (bench.services.views.get(run.integrator, run.id) or b""),
        what="its view is published",
    )
    before = bench.read(run).execution.steps["s2"].due_by
    bench.clock.advance(0.4)
    wait_until(lambda: bench.read(run).execution.steps["s2"].due_by != before, what="the second lease is renewed")
    gate.open.set()
    thread.join(5)
    assert statuses(bench, run) == ["completed", "completed"]
    assert bench.writes() == (2 if either_way else 3)
    assert {step.claims for step in bench.read(run).execution.steps.values()} == {1}


def test_a_run_that_has_lost_a_worker_writes_each_decision_at_once(bench: WorkerHarness) -> None:
    run = bench.accept("echo", "echo", "echo")
    claim_decision = claim(run, "s1", "lost", bench.clock.now(), bench.services.timings)
    assert claim_decision is not None
    execution = bench.services.store.save(run, claim_decision).execution
    bench.clock.advance(2)
    rescue_decision = rescue(execution, "s1", bench.clock.now(), bench.services.timings)
    assert rescue_decision is not None
    bench.services.store.save(execution, rescue_decision)
    bench.store.calls.clear()
    bench.runner().run_message(bench.message_of(run))
    assert bench.store.calls["save"] == 4
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED


def request_cancel(bench: WorkerHarness, run: Execution) -> None:
    execution = bench.services.store.load(PUBLIC_INTEGRATOR, run.id)
    assert execution is not None
    cancel_decision = cancel(execution, bench.clock.now())
    assert cancel_decision is not None
    bench.services.store.save(execution, cancel_decision)


@pytest.mark.usefixtures("claims_first")
def test_after_a_cancel_that_the_worker_knows_of_no_next_step_begins(bench: WorkerHarness) -> None:
    # A step within a heartbeat period would share its write with the next one; the cancel comes by the hint in Redis.
    bench.services = replace(bench.services, settings=replace(bench.services.settings, heartbeat_s=60))
    run, second = bench.accept("echo", "memo"), Gate()
    entered = threading.Event()

    def first(given: dict[str, Any], context: AgentContext) -> Any:
        entered.set()
        wait_until(lambda: context.cancelled, what="the agent is told")
        return given

    thread = run_beside(bench, run, echo=first, memo=second.run)
    assert entered.wait(5)
    request_cancel(bench, run)
    cancel_hints.set_cancel_hint(bench.services.redis, run.id)
    thread.join(10)
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.CANCELLED
    assert [step.status for step in record.execution.steps.values()] == [StepStatus.COMPLETED, StepStatus.SKIPPED]
    assert not second.entered.is_set()


@pytest.mark.usefixtures("claims_first")
def test_a_step_that_began_before_the_worker_knew_of_a_cancel_is_cancelled_and_not_skipped(
    bench: WorkerHarness,
) -> None:
    run, first = bench.accept("echo", "memo", "echo"), Gate()

    def second(_: dict[str, Any], context: AgentContext) -> Any:
        wait_until(lambda: context.cancelled, what="the agent is told")
        raise RuntimeError("stopped")

    thread = run_beside(bench, run, echo=first.run, memo=second)
    assert first.entered.wait(5)
    request_cancel(bench, run)
    assert statuses(bench, run) == ["running", "waiting", "waiting"]
    first.open.set()
    wait_until(lambda: statuses(bench, run) == ["completed", "running", "waiting"], what="it shows that the step began")
    bench.clock.advance(0.4)
    thread.join(10)
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.CANCELLED
    assert statuses(bench, run) == ["completed", "cancelled", "skipped"]
    assert [step.claims for step in record.execution.steps.values()] == [1, 1, 0]
    assert set(record.outputs) == {"s1"}


def test_after_the_deadline_of_the_run_no_next_step_begins(bench: WorkerHarness) -> None:
    run, second = bench.accept("echo", "memo", deadline=bench.clock.now() + timedelta(seconds=5)), Gate()

    def first(given: dict[str, Any], _: AgentContext) -> Any:
        bench.clock.advance(6)
        return given

    bench.runner(echo=first, memo=second.run).run_message(bench.message_of(run))
    execution = bench.read(run).execution
    assert execution.error is not None
    assert (execution.status, execution.error.error_code) == (ExecutionStatus.FAILED, "deadline_exceeded")
    assert statuses(bench, run) == ["completed", "skipped"]
    assert not second.entered.is_set()


def test_a_run_with_a_deadline_shows_a_step_before_it_begins(bench: WorkerHarness) -> None:
    run, seen = bench.accept("echo", "memo", deadline=bench.clock.now() + timedelta(hours=1)), list[list[str]]()

    def second(given: dict[str, Any], _: AgentContext) -> Any:
        seen.append(statuses(bench, run))
        return given

    bench.runner(memo=second).run_message(bench.message_of(run))
    assert seen == [["completed", "running"]]


def test_a_step_that_was_claimed_just_before_the_drain_is_handed_back_unbegun(bench: WorkerHarness) -> None:
    run, agent = bench.accept("echo"), Gate()
    runner, message = bench.runner(echo=agent.run), bench.message_of(run)

    def claim_then_drain() -> ClaimedStep | None:
        claimed_step = runner._claims.claim(message)
        runner._interrupter._slots.begin_drain()
        return claimed_step

    runner._claim_and_run_chain(message, claim_then_drain)
    assert statuses(bench, run) == ["ready"]
    assert not agent.entered.is_set()


@pytest.mark.usefixtures("either_way")
def test_a_lost_reply_to_a_shared_write_records_each_step_once(bench: WorkerHarness) -> None:
    run = bench.accept("echo", "echo", "echo")
    bench.store.fail("save", before=1, after=1)
    bench.store.fail("save", before=2, after=1)
    bench.runner().run_message(bench.message_of(run))
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert [event.event for event in record.events].count("step.completed") == 3
    view = bench.services.views.get(run.integrator, run.id)
    assert view is not None
    assert parse_header(view).rev == record.execution.rev


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("in_batch", [False, True])
def test_what_was_kept_of_a_run_is_freed_at_once(bench: WorkerHarness, *, in_batch: bool) -> None:
    runs = [bench.accept("echo", "memo") for _ in range(3)]
    runner, messages = bench.runner(), [bench.message_of(run) for run in runs]
    gc.disable()  # it would free reference cycles, but thousands of runs later: a worker grew by a quarter
    try:
        if in_batch:
            runner._batch_runner.run(messages)
        else:
            for message in messages:
                runner.run_message(message)
        kept = [each.execution.id for each in gc.get_objects() if type(each) in {ClaimedStep, PendingWrites}]
    finally:
        gc.enable()
    assert {bench.read(run).execution.status for run in runs} == {ExecutionStatus.COMPLETED}
    assert not {run.id for run in runs}.intersection(kept)
