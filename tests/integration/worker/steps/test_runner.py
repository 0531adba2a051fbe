"""A chain records each of its steps once, also if calls to the store fail."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import orjson
import pytest

from shared.domain.execution import PRIORITY_FIRST_OFFER
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.transitions import expire
from shared.domain.status import ExecutionStatus, StepStatus
from shared.live.render import parse_header
from shared.queue.message import list_key
from shared.store.executions.settle import settle
from shared.telemetry.fleet_counters import STEPS_KEY
from tests.faulty_store import FaultyStore
from tests.integration.worker.conftest import WorkerHarness
from worker.context import AgentContext


def events_of(bench: WorkerHarness, run: Any) -> list[tuple[str, str]]:
    return [(event.event, event.step) for event in bench.read(run).events if event.event != "execution.accepted"]


WHOLE = [
    ("step.started", "s1"),
    ("step.completed", "s1"),
    ("step.started", "s2"),
    ("step.completed", "s2"),
    ("step.started", "s3"),
    ("step.completed", "s3"),
    ("execution.completed", "basket_manager"),
]


def check_whole(bench: WorkerHarness, run: Any) -> None:
    """Check that a chain of three steps completed, with each step recorded once and by one claim."""
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert [name for name, _ in events_of(bench, run)] == [name for name, _ in WHOLE]
    assert {step.claims for step in record.execution.steps.values()} == {1}
    assert {step.losses for step in record.execution.steps.values()} == {0}
    assert orjson.loads(record.outputs["s3"]) == {"hello": "world"}


@pytest.mark.usefixtures("long_delays")
def test_a_quick_chain_runs_on_one_message_and_shares_a_write(bench: WorkerHarness, *, either_way: bool) -> None:
    run = bench.accept("echo", "echo", "echo", given={"hello": "world"})
    bench.runner().run_message(bench.message_of(run))
    check_whole(bench, run)
    assert bench.writes() == (1 if either_way else 2), "the claim, unless it rides in the one save for all steps"
    assert bench.services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("place", range(2))
@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_save_that_fails_before_or_after_it_is_written_records_its_step_once(
    bench: WorkerHarness, fault: str, place: int
) -> None:
    run = bench.accept("echo", "echo", "echo", given={"hello": "world"})
    writes, faults = itertools.count(), list[str]()

    def faulty(store: FaultyStore, verb: str) -> None:
        real = store.__getattr__(verb)

        def write(*args: Any, **options: Any) -> Any:
            if next(writes) == place:
                faults.append(verb)
                store.fail(verb, **{fault: 2})
            return real(*args, **options)

        setattr(store, verb, write)

    faulty(bench.store, "save")
    faulty(bench.batches, "save_all")
    bench.runner().run_message(bench.message_of(run))
    check_whole(bench, run)
    assert faults or place >= bench.writes()


@pytest.mark.usefixtures("either_way")
def test_any_call_to_the_store_may_fail_often(bench: WorkerHarness) -> None:
    run = bench.accept("echo", "echo", "echo", given={"hello": "world"})
    for verb in ("load_all", "save_all"):
        bench.batches.fail(verb, before=4)
    for verb in ("load", "save"):
        bench.store.fail(verb, before=4)
    bench.runner().run_message(bench.message_of(run))
    check_whole(bench, run)


def test_a_repeated_message_finds_nothing_to_claim(bench: WorkerHarness) -> None:
    run = bench.accept("echo", "echo", "echo", given={"hello": "world"})
    runner = bench.runner()
    for step in ("s1", "s1", "s2", "s3", "nowhere"):
        runner.run_message(bench.message_of(run, step))
    check_whole(bench, run)


def test_a_step_that_was_taken_over_meanwhile_is_not_recorded_by_the_loser(bench: WorkerHarness) -> None:
    run = bench.accept("echo")

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        if ctx.attempt == 1:
            bench.lose_worker(run)
            runner.run_message(bench.message_of(run))
        return {"by": ctx.attempt}

    runner = bench.runner(echo=agent)
    runner.run_message(bench.message_of(run))
    record = bench.read(run)
    assert orjson.loads(record.outputs["s1"]) == {"by": 2}
    assert [name for name, _ in events_of(bench, run)].count("step.completed") == 1
    assert (record.execution.steps["s1"].claims, record.execution.steps["s1"].losses) == (2, 1)


def test_the_output_of_a_step_that_a_deadline_has_ended_is_not_published(bench: WorkerHarness) -> None:
    run = bench.accept("echo", deadline=bench.clock.now() + timedelta(seconds=5))

    def agent(given: dict[str, Any], _: AgentContext) -> dict[str, Any]:
        execution, later = bench.services.store.load(run.integrator, run.id), bench.clock.advance(6)
        assert execution is not None
        assert settle(bench.services.store, execution, lambda current: expire(current, later)) is not None
        return given

    bench.runner(echo=agent).run_message(bench.message_of(run))
    record = bench.read(run)
    assert (record.execution.status, record.outputs) == (ExecutionStatus.FAILED, {})
    assert bench.services.views.get_output(run.integrator, run.id, "s1") is None
    assert bench.services.redis.hgetall(STEPS_KEY) == {}


@pytest.mark.parametrize("kind", [MemoryError, SystemExit, KeyboardInterrupt, RecursionError, GeneratorExit])
def test_any_exception_of_an_agent_is_its_failure(bench: WorkerHarness, kind: type[BaseException]) -> None:
    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        raise kind

    run = bench.accept("echo", "echo")
    bench.runner(echo=agent).run_message(bench.message_of(run))
    execution = bench.read(run).execution
    assert (execution.status, execution.error.error_code if execution.error else "") == ("failed", "agent_error")
    assert [step.status for step in execution.steps.values()] == [StepStatus.FAILED, StepStatus.SKIPPED]


def test_an_agent_refuses_its_input_by_an_error_of_its_own(bench: WorkerHarness) -> None:
    transactions = [{"id": number, "amount": 999_999_999_999.99} for number in range(71)]
    run = bench.accept("cashflow_analyzer", given={"transactions": transactions})
    bench.runner().run_message(bench.message_of(run))
    error = bench.read(run).execution.error
    assert error is not None
    assert error.error_code == "input_invalid"
    assert error.message.startswith("the sum 70,999,999,999,999.29 is too large")


@pytest.mark.parametrize("chain", [("echo",), ("memo", "echo")])
def test_a_failed_run_shows_where_it_stood(bench: WorkerHarness, chain: tuple[str, ...]) -> None:
    def agent(_: dict[str, Any], context: AgentContext) -> dict[str, Any]:
        context.progress(0.4)
        raise ValueError("no")

    run = bench.accept(*chain)
    bench.runner(echo=agent).run_message(bench.message_of(run))
    view = bench.services.views.get(run.integrator, run.id)
    assert view is not None
    assert bench.read(run).execution.status is ExecutionStatus.FAILED
    assert f'"percent":{40 if len(chain) == 1 else 70}'.encode() in view


def test_progress_does_not_go_back_when_a_worker_is_lost(bench: WorkerHarness) -> None:
    run, percents = bench.accept("echo"), list[int | None]()

    def first(_: dict[str, Any], context: AgentContext) -> dict[str, Any]:
        context.progress(0.4)
        context.checkpoint({})
        bench.lose_worker(run)
        percents.append(bench.read(run).execution.steps["s1"].percent)
        return {}

    def second(_: dict[str, Any], context: AgentContext) -> dict[str, Any]:
        context.progress(0.1)
        context.checkpoint({})
        percents.append(bench.read(run).execution.steps["s1"].percent)
        return {}

    bench.runner(echo=first).run_message(bench.message_of(run))
    bench.runner(echo=second).run_message(bench.message_of(run))
    assert percents == [40, 40]
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED


def test_a_simulated_worker_loss_shows_the_last_progress_and_nothing_more(bench: WorkerHarness) -> None:
    run = bench.accept("simulate", given={"script": ["running:0@40", "worker_lost", "completed"]})
    bench.services.publisher.publish_accepted([Decision(run)])
    bench.runner().run_message(bench.message_of(run))
    record = bench.read(run)
    step = record.execution.steps["s1"]
    assert (step.status, step.percent, step.message) == (StepStatus.RUNNING, 40, "the worker is lost")
    assert [event.event for event in record.events][1:] == ["step.started", "agent.log"]
    view = bench.services.views.get(run.integrator, run.id)
    assert view is not None
    assert (parse_header(view).status, parse_header(view).rev) == ("running", record.execution.rev)
    assert b'"percent":40' in view
    assert bench.services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0


@pytest.mark.parametrize("script", [["worker_lost"], ["running:0@40", "worker_lost"]])
@pytest.mark.parametrize("fault", ["before", "after"])
def test_the_last_report_of_a_simulated_loss_is_repeated_until_the_store_replies(
    bench: WorkerHarness, script: list[str], fault: str
) -> None:
    bench.store.fail("report", **{fault: 2})
    run = bench.accept("simulate", given={"script": script})
    bench.runner().run_message(bench.message_of(run))
    assert bench.read(run).execution.steps["s1"].message == "the worker is lost"


def test_an_agent_that_floods_its_log_still_completes_and_what_was_dropped_is_counted(bench: WorkerHarness) -> None:
    run = bench.accept("chatty", given={"lines": 20_000, "bytes": 3_900})
    bench.runner().run_message(bench.message_of(run))
    record = bench.read(run)
    assert record.execution.status is ExecutionStatus.COMPLETED
    assert record.lines_total == 20_000 + 4
    assert len(record.events) == 1_000
    assert record.events[-1].event == "execution.completed"


@pytest.mark.usefixtures("long_delays")
def test_an_agents_lines_do_not_wait_for_a_store_that_is_away(bench: WorkerHarness) -> None:
    """A log line takes the advanced clock; a read would block the agent for a store deadline with each line."""
    run = bench.accept("echo")
    reads_while_running = []

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        before = len(clock_reads)
        for number in range(100):
            ctx.log(f"line {number}")
        reads_while_running.append(len(clock_reads) - before)
        return {}

    clock_reads: list[int] = []
    clock = bench.services.clock
    real = clock._read_time

    def ask() -> Any:
        clock_reads.append(1)
        return real()

    clock._read_time = ask
    bench.runner(echo=agent).run_message(bench.message_of(run))
    assert reads_while_running == [0]
    assert bench.read(run).lines_total == 104
