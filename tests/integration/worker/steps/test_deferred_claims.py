"""Deferred claims: a quick chain of idempotent agents is one write; whatever comes between, one result is recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.transitions import cancel, rescue
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import StaleWrite
from shared.live.render import parse_header
from tests.integration.worker.conftest import WorkerHarness
from tests.waiting import wait_until
from worker.context import AgentContext

pytestmark = pytest.mark.usefixtures("long_handoff")


def step_of(bench: WorkerHarness, run: Execution, step: str = "s1") -> tuple[str, int]:
    """Return the status of a step and its attempts, as the primary has them now."""
    execution = bench.services.store.load(PUBLIC_INTEGRATOR, run.id)
    assert execution is not None
    return str(execution.steps[step].status), execution.steps[step].claims


class Held:
    """An agent that a test holds: it says that it was entered, waits, and returns ``result`` or its input."""

    def __init__(self, result: dict[str, Any] | None = None) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.context: AgentContext | None = None
        self._result = result

    def run(self, given: dict[str, Any], context: AgentContext) -> Any:
        self.context = context
        self.entered.set()
        wait_until(lambda: self.open.is_set() or context.cancelled, what="the test lets the agent go on")
        return self._result or given


def begin(bench: WorkerHarness, run: Execution, **agents: Callable[..., Any]) -> threading.Thread:
    runner, message = bench.runner(**agents), bench.message_of(run)
    thread = threading.Thread(target=runner.run_message, args=(message,), daemon=True)
    thread.start()
    return thread


def save(bench: WorkerHarness, run: Execution, transition: Callable[[Execution], Any]) -> None:
    execution = bench.services.store.load(PUBLIC_INTEGRATOR, run.id)
    assert execution is not None
    decision = transition(execution)
    assert decision is not None
    bench.services.store.save(execution, decision)


def seen_by_agent(bench: WorkerHarness, run: Execution, agent: str, step: str = "s1") -> tuple[str, int]:
    """Run ``run``; return the stored status and attempts of ``step`` when ``agent`` begins it."""
    seen: list[tuple[str, int]] = []

    def look(given: dict[str, Any], _: AgentContext) -> Any:
        seen.append(step_of(bench, run, step))
        return given

    bench.runner(**{agent: look}).run_message(bench.message_of(run))
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED
    return seen[0]


@pytest.mark.usefixtures("long_delays")
def test_a_quick_chain_is_one_write_and_reads_as_if_it_had_been_claimed(bench: WorkerHarness) -> None:
    run = bench.accept("echo", "echo")
    assert seen_by_agent(bench, run, "echo") == ("ready", 0)
    record = bench.read(run)
    events = [event.event for event in record.events]
    chain = ["step.started", "step.completed"]
    assert events == ["execution.accepted", *chain, *chain, "execution.completed"]
    assert [step.claims for step in record.execution.steps.values()] == [1, 1]
    assert record.execution.started_at is not None
    assert bench.writes() == 1


def test_an_agent_that_is_not_idempotent_begins_under_a_stored_claim(bench: WorkerHarness) -> None:
    assert seen_by_agent(bench, bench.accept("counter"), "counter") == ("running", 1)


@pytest.mark.usefixtures("long_delays")
def test_so_does_one_that_follows_in_an_unclaimed_chain(bench: WorkerHarness) -> None:
    run = bench.accept("echo", "counter")
    assert seen_by_agent(bench, run, "counter", "s2") == ("running", 1)
    assert bench.writes() == 2


@pytest.mark.parametrize("limit", ["deadline", "start_deadline"])
def test_a_run_with_a_deadline_is_claimed_first(bench: WorkerHarness, limit: str) -> None:
    run = bench.accept("echo", **{limit: bench.clock.now() + timedelta(hours=1)})
    assert seen_by_agent(bench, run, "echo") == ("running", 1)


def test_a_step_that_is_offered_again_is_claimed_first_so_that_losses_are_counted(bench: WorkerHarness) -> None:
    run = bench.accept("echo")
    later = bench.clock.advance(62)
    save(bench, run, lambda execution: rescue(execution, "s1", later, bench.services.timings))
    assert seen_by_agent(bench, run, "echo") == ("running", 1)


def test_a_step_whose_handoff_time_is_over_is_claimed_first(bench: WorkerHarness, long_handoff: timedelta) -> None:
    run = bench.accept("echo")
    bench.clock.advance(long_handoff.total_seconds() + 1)
    assert seen_by_agent(bench, run, "echo") == ("running", 1)


def test_the_claim_of_a_slow_step_is_stored_and_shown_meanwhile_and_its_lease_is_kept(bench: WorkerHarness) -> None:
    run, agent = bench.accept("echo"), Held()
    thread = begin(bench, run, echo=agent.run)
    wait_until(lambda: step_of(bench, run) == ("running", 1), what="the claim is stored")
    wait_until(
        lambda: b'"status":"running"' in (bench.services.views.get(run.integrator, run.id) or b""),
        what="its view is published",
    )
    before = bench.read(run).execution.steps["s1"].due_by
    bench.clock.advance(0.4)
    wait_until(lambda: bench.read(run).execution.steps["s1"].due_by != before, what="the lease is renewed")
    agent.open.set()
    thread.join(5)
    assert step_of(bench, run) == ("completed", 1)


@pytest.mark.parametrize("fault", [{"before": 2}, {"after": 1}])
def test_a_claim_whose_write_gets_no_reply_is_stored_once(bench: WorkerHarness, fault: dict[str, int]) -> None:
    run, agent = bench.accept("echo", "echo"), Held()
    bench.store.fail("save", **fault)
    thread = begin(bench, run, echo=agent.run)
    wait_until(lambda: step_of(bench, run) == ("running", 1), what="the claim is stored")
    agent.open.set()
    thread.join(5)
    record = bench.read(run)
    assert [event.event for event in record.events].count("step.started") == 2
    assert record.execution.status is ExecutionStatus.COMPLETED
    view = bench.services.views.get(run.integrator, run.id)
    assert view is not None
    assert parse_header(view).rev == record.execution.rev


@pytest.mark.usefixtures("long_delays")
def test_a_doubled_message_may_run_a_step_twice_and_records_one_result(bench: WorkerHarness) -> None:
    run, first, second = bench.accept("echo"), Held({"by": "first"}), Held({"by": "second"})
    threads = [begin(bench, run, echo=agent.run) for agent in (first, second)]
    assert first.entered.wait(5)
    assert second.entered.wait(5)
    second.open.set()
    threads[1].join(5)
    first.open.set()
    threads[0].join(5)
    record = bench.read(run)
    assert record.outputs == {"s1": b'{"by":"second"}'}
    assert [event.event for event in record.events].count("step.completed") == 1
    assert record.execution.steps["s1"].claims == 1, "the attempt whose result counts"
    assert record.execution.status is ExecutionStatus.COMPLETED


def test_a_worker_whose_step_another_has_claimed_meanwhile_stops_it(bench: WorkerHarness) -> None:
    run, ours = bench.accept("echo"), Held({"by": "us"})
    runner, message = bench.runner(echo=ours.run), bench.message_of(run)
    bench.store.intercept_next("save", lambda _: claim_elsewhere(bench, run))
    runner.run_message(message)
    assert ours.context is not None
    assert ours.context.cancelled
    assert bench.read(run).outputs == {"s1": b"{}"}


def claim_elsewhere(bench: WorkerHarness, run: Execution) -> Any:
    """Let another worker run the whole run, and then let the write that was intercepted find that out."""
    bench.runner().run_message(bench.message_of(run))
    execution = bench.services.store.load(PUBLIC_INTEGRATOR, run.id)
    assert execution is not None
    assert execution.is_done
    raise StaleWrite("it was written by another worker meanwhile")


def test_a_cancel_before_the_claim_is_stored_ends_the_run_and_stops_the_agent(bench: WorkerHarness) -> None:
    run, agent = bench.accept("echo", "memo"), Held()
    second = Held()
    bench.store.intercept_next("save", lambda write: cancelled_first(bench, run, write))
    bench.runner(echo=agent.run, memo=second.run).run_message(bench.message_of(run))
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.CANCELLED
    assert [step.status for step in record.execution.steps.values()] == [StepStatus.CANCELLED, StepStatus.SKIPPED]
    assert record.outputs == {}
    assert agent.context is not None
    assert agent.context.cancelled
    assert not second.entered.is_set()


def cancelled_first(bench: WorkerHarness, run: Execution, write: Callable[[], Any]) -> Any:
    save(bench, run, lambda execution: cancel(execution, bench.clock.now()))
    return write()
