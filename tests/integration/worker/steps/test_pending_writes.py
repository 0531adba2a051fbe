"""Quick steps share a write, and nothing else waits: not a slow step, not a loss, not a cancel."""

from __future__ import annotations

import threading
from typing import Any

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.transitions import cancel, claim, rescue
from shared.domain.status import ExecutionStatus, StepStatus
from shared.live.render import parse_header
from tests.integration.worker.conftest import Bench
from tests.waiting import wait_until
from worker.context import AgentContext


def statuses(bench: Bench, run: Execution) -> list[str]:
    return [str(step.status) for step in bench.read(run).execution.steps.values()]


class Gate:
    """An agent that waits until a test lets it go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def run(self, given: dict[str, Any], _: AgentContext) -> Any:
        self.entered.set()
        assert self.open.wait(10)
        return given


def answering(bench: Bench, run: Execution, **agents: Any) -> threading.Thread:
    thread = threading.Thread(target=bench.runner(**agents).run_message, args=(bench.bell(run),), daemon=True)
    thread.start()
    return thread


def test_a_step_before_a_slow_one_is_written_and_shown_while_that_runs(bench: Bench) -> None:
    run, gate = bench.accept("echo", "memo"), Gate()
    thread = answering(bench, run, memo=gate.run)
    assert gate.entered.wait(5)
    wait_until(lambda: statuses(bench, run) == ["completed", "running"], what="the first step is written")
    wait_until(lambda: b'"steps_completed":1' in (bench.services.views.get(run.id) or b""), what="it is shown")
    before = bench.read(run).execution.steps["s2"].due_by
    bench.hand.forward(0.4)
    wait_until(lambda: bench.read(run).execution.steps["s2"].due_by != before, what="the second lease is renewed")
    gate.open.set()
    thread.join(5)
    assert statuses(bench, run) == ["completed", "completed"]
    assert bench.store.asked["save"] == 3
    assert {step.claims for step in bench.read(run).execution.steps.values()} == {1}


def test_a_run_that_has_lost_a_worker_writes_each_decision_at_once(bench: Bench) -> None:
    run = bench.accept("echo", "echo", "echo")
    claimed = claim(run, "s1", "lost", bench.hand.now(), bench.services.timings)
    assert claimed is not None
    held = bench.services.store.save(run, claimed).execution
    bench.hand.forward(2)
    lost = rescue(held, "s1", bench.hand.now(), bench.services.timings)
    assert lost is not None
    bench.services.store.save(held, lost)
    bench.store.asked.clear()
    bench.runner().run_message(bench.bell(run))
    assert bench.store.asked["save"] == 4
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED


def test_a_cancel_that_comes_between_keeps_what_was_done_and_drops_the_rest(bench: Bench) -> None:
    run, first, second = bench.accept("echo", "memo"), Gate(), Gate()
    thread = answering(bench, run, echo=first.run, memo=second.run)
    assert first.entered.wait(5)
    held = bench.services.store.load(PUBLIC_INTEGRATOR, run.id)
    assert held is not None
    asked = cancel(held, bench.hand.now())
    assert asked is not None
    bench.services.store.save(held, asked)
    first.open.set()
    wait_until(lambda: bench.read(run).execution.is_done, what="the run is over")
    second.open.set()
    thread.join(5)
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.CANCELLED
    assert [step.status for step in record.execution.steps.values()] == [StepStatus.COMPLETED, StepStatus.SKIPPED]
    assert set(record.outputs) == {"s1"}


def test_an_answer_lost_while_several_steps_are_written_records_each_once(bench: Bench) -> None:
    run = bench.accept("echo", "echo", "echo")
    bench.store.fail("save", before=1, after=1)
    bench.store.fail("save", before=2, after=1)
    bench.runner().run_message(bench.bell(run))
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert [event.event for event in record.events].count("step.completed") == 3
    view = bench.services.views.get(run.id)
    assert view is not None
    assert parse_header(view).rev == record.execution.rev
