"""Write-behind: quick steps share a write, and nothing else is delayed: no slow step, no loss, no cancel."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.transitions import cancel, claim, rescue
from shared.domain.status import ExecutionStatus, StepStatus
from shared.live.render import parse_header
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


def test_a_step_before_a_slow_one_is_saved_and_published_while_that_runs(bench: WorkerHarness) -> None:
    run, gate = bench.accept("echo", "memo"), Gate()
    thread = run_beside(bench, run, memo=gate.run)
    assert gate.entered.wait(5)
    wait_until(lambda: statuses(bench, run) == ["completed", "running"], what="the first step is saved")
    wait_until(
        lambda: b'"steps_completed":1' in (bench.services.views.get(run.id) or b""), what="its view is published"
    )
    before = bench.read(run).execution.steps["s2"].due_by
    bench.clock.advance(0.4)
    wait_until(lambda: bench.read(run).execution.steps["s2"].due_by != before, what="the second lease is renewed")
    gate.open.set()
    thread.join(5)
    assert statuses(bench, run) == ["completed", "completed"]
    assert bench.store.calls["save"] == 3
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


def test_a_cancel_during_a_chain_keeps_completed_steps_and_drops_the_rest(bench: WorkerHarness) -> None:
    run, first, second = bench.accept("echo", "memo"), Gate(), Gate()
    thread = run_beside(bench, run, echo=first.run, memo=second.run)
    assert first.entered.wait(5)
    execution = bench.services.store.load(PUBLIC_INTEGRATOR, run.id)
    assert execution is not None
    cancel_decision = cancel(execution, bench.clock.now())
    assert cancel_decision is not None
    bench.services.store.save(execution, cancel_decision)
    first.open.set()
    wait_until(lambda: bench.read(run).execution.is_done, what="the run is over")
    second.open.set()
    thread.join(5)
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.CANCELLED
    assert [step.status for step in record.execution.steps.values()] == [StepStatus.COMPLETED, StepStatus.SKIPPED]
    assert set(record.outputs) == {"s1"}


def test_a_lost_reply_to_a_shared_write_records_each_step_once(bench: WorkerHarness) -> None:
    run = bench.accept("echo", "echo", "echo")
    bench.store.fail("save", before=1, after=1)
    bench.store.fail("save", before=2, after=1)
    bench.runner().run_message(bench.message_of(run))
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert [event.event for event in record.events].count("step.completed") == 3
    view = bench.services.views.get(run.id)
    assert view is not None
    assert parse_header(view).rev == record.execution.rev


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
