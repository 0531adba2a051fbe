"""A batch of messages costs few round trips, and each run is recorded as if it were alone, also after faults."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from shared.domain.definitions.basket import PARALLEL, Basket, BasketStep
from shared.domain.execution import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER, PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.transitions import cancel, claim, rescue
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import NotStorable
from shared.live import log_stream
from shared.live.log_stream import LogFilter
from shared.live.render import parse_header, render
from shared.queue.dequeue import Dequeuer
from shared.queue.message import enqueue, list_key
from shared.store.executions.bulk import BulkSave
from tests.integration.worker.conftest import WorkerHarness, set_write_delay
from tests.waiting import wait_until
from worker.context import AgentContext
from worker.steps.batch_runner import BATCH_SIZE_MAX, QUICK_RUN_MAX_S, BatchSizer
from worker.steps.pending_writes import WRITE_DELAY_MAX_S
from worker.steps.runner import GATHER_S, Runner

COMPLETED = ExecutionStatus.COMPLETED
CHAIN = ["step.started", "step.completed", "step.started", "step.completed", "execution.completed"]


def accept_runs(bench: WorkerHarness, count: int, *agents: str) -> list[Execution]:
    return [bench.accept(*(agents or ("echo", "echo")), given={"n": number}) for number in range(count)]


def run_batch(bench: WorkerHarness, runs: Sequence[Execution], runner: Runner | None = None) -> None:
    """Run the messages of ``runs`` as one batch."""
    batches = (runner or bench.runner())._batch_runner
    batches.run([bench.message_of(run) for run in runs])


def check_recorded_once(bench: WorkerHarness, runs: Sequence[Execution], attempts: int = 1) -> None:
    """Check that each run is completed, each step recorded once by ``attempts`` claims, and the view up to date."""
    for number, run in enumerate(runs):
        record = bench.read(run)
        event_names = [event.event for event in record.events if event.event != "execution.accepted"]
        assert record.execution.status is COMPLETED
        assert event_names == CHAIN
        assert {step.claims for step in record.execution.steps.values()} == {attempts}
        assert orjson.loads(record.outputs["s2"])["n"] == number
        assert bench.services.views.get(run.integrator, run.id) == render(record), (
            "published as it was saved, with rev and log lines"
        )


with_long_delays = pytest.mark.usefixtures("long_delays")


@with_long_delays
def test_several_runs_share_a_load_a_claim_and_a_final_save(bench: WorkerHarness, *, either_way: bool) -> None:
    runs = accept_runs(bench, 5)
    run_batch(bench, runs)
    check_recorded_once(bench, runs)
    assert dict(bench.batches.calls) == {"load_all": 1, "save_all": 1 if either_way else 2}
    assert (bench.store.calls["load"], bench.store.calls["save"]) == (0, 0)
    lines = [
        (line["execution_id"], line["seq"])
        for line in log_stream.read_latest(bench.services.redis, LogFilter(None), 100).lines
    ]
    assert sorted(lines) == sorted((run.id, seq) for run in runs for seq in range(2, 7)), "each log line once"
    assert bench.services.views.get_output(runs[0].integrator, runs[0].id, "s1") == b'{"n":0}'
    assert bench.services.redis.hget("metrics:executions", '["bench","completed"]') == b"5"


@with_long_delays
@pytest.mark.parametrize(("waiting", "waits_for_more"), [(2, True), (1, False)])
def test_after_a_few_quick_runs_a_runner_waits_a_moment_for_more_and_after_a_lone_one_it_does_not(
    bench: WorkerHarness, monkeypatch: pytest.MonkeyPatch, waiting: int, waits_for_more: bool
) -> None:
    first, *queued, late = accept_runs(bench, waiting + 2, "echo")

    def send(run: Execution) -> None:
        enqueue(bench.services.redis, bench.message_of(run), "default", PRIORITY_FIRST_OFFER)

    def send_late(seconds: float) -> None:
        assert seconds == GATHER_S
        send(late)

    for run in queued:
        send(run)
    runner = bench.runner()
    monkeypatch.setattr("worker.steps.batch_runner.QUICK_RUN_MAX_S", 60.0)
    monkeypatch.setattr("worker.steps.runner.time", SimpleNamespace(sleep=send_late))
    for size in (2, 4):  # as after some quick runs
        runner._batch_sizer.record_duration(0.001)
        assert runner._batch_sizer.next_size() == size
    runner.run_message_and_backlog(bench.message_of(first))
    assert bench.read(late).execution.is_done is waits_for_more


@with_long_delays
def test_a_runner_takes_larger_batches_while_its_runs_are_quick(
    bench: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = accept_runs(bench, 60, "echo")
    for run in runs[1:]:
        enqueue(bench.services.redis, bench.message_of(run), "default", PRIORITY_FIRST_OFFER)
    runner = bench.runner()
    monkeypatch.setattr("worker.steps.batch_runner.QUICK_RUN_MAX_S", 60.0)
    runner.run_message_and_backlog(bench.message_of(runs[0]))
    while messages := runner._dequeue(BATCH_SIZE_MAX).messages:  # after a second it returns to Celery's loop
        runner._batch_runner.run(messages)
    assert all(bench.read(run).execution.status is COMPLETED for run in runs)
    assert 0 < bench.batches.calls["load_all"] < 20


@pytest.mark.usefixtures("either_way")
@with_long_delays
@pytest.mark.parametrize("place", range(2))
@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_shared_write_that_fails_before_or_after_it_is_written_records_each_run_once(
    bench: WorkerHarness, fault: str, place: int
) -> None:
    runs, saves = accept_runs(bench, 4), iter(range(9))
    real = bench.batches.__getattr__("save_all")

    def save_all(asked: Sequence[BulkSave]) -> bool:
        if next(saves) == place:
            bench.batches.fail("save_all", **{fault: 1})
            bench.store.fail("save", **{fault: 2})
        written: bool = real(asked)
        return written

    bench.batches.save_all = save_all  # type: ignore[attr-defined]
    run_batch(bench, runs)
    check_recorded_once(bench, runs)


@pytest.mark.usefixtures("either_way")
@with_long_delays
def test_after_a_failed_bulk_load_each_message_is_run_alone(bench: WorkerHarness) -> None:
    runs = accept_runs(bench, 3)
    bench.batches.fail("load_all", before=1)
    run_batch(bench, runs)
    check_recorded_once(bench, runs)


@pytest.mark.usefixtures("either_way")
@with_long_delays
def test_a_message_that_comes_twice_in_a_batch_runs_once(bench: WorkerHarness) -> None:
    runs = accept_runs(bench, 3)
    run_batch(bench, [runs[0], *runs, runs[2]])
    check_recorded_once(bench, runs)
    assert bench.store.calls["save"] == 0, "a doubled message does not break the shared claim"


def before_shared_write(bench: WorkerHarness, number: int, act: Callable[[], None]) -> None:
    """Call ``act`` just before the ``number``-th shared write."""
    real, saves = bench.batches.__getattr__("save_all"), iter(range(1, 99))

    def save_all(asked: Sequence[BulkSave]) -> bool:
        if next(saves) == number:
            act()
        written: bool = real(asked)
        return written

    bench.batches.save_all = save_all  # type: ignore[attr-defined]


@pytest.mark.usefixtures("claims_first")
@with_long_delays
def test_a_run_that_another_worker_claims_meanwhile_is_dropped_and_no_other(bench: WorkerHarness) -> None:
    runs = accept_runs(bench, 3)

    def claimed_elsewhere() -> None:
        theirs = claim(runs[1], "s1", "theirs", bench.clock.now(), bench.services.timings)
        assert theirs is not None
        bench.services.store.save(runs[1], theirs)

    before_shared_write(bench, 1, claimed_elsewhere)
    ran: list[int] = []

    def agent(given: dict[str, Any], _: AgentContext) -> Any:
        ran.append(given["n"])
        return given

    run_batch(bench, runs, bench.runner(echo=agent))
    assert ran == [0, 0, 2, 2], "a run claimed by another worker is not run here"
    theirs = bench.read(runs[1]).execution
    assert (theirs.status, theirs.steps["s1"].token) == (ExecutionStatus.RUNNING, "theirs")
    for run in (runs[0], runs[2]):
        assert [event.event for event in bench.read(run).events][1:] == CHAIN


@pytest.mark.usefixtures("claims_first")
@with_long_delays
def test_an_outcome_whose_lease_was_lost_is_refused_and_no_other(bench: WorkerHarness) -> None:
    runs = accept_runs(bench, 3)

    def rescued() -> None:
        execution = bench.services.store.load(PUBLIC_INTEGRATOR, runs[1].id)
        assert execution is not None
        decision = rescue(execution, "s1", bench.clock.advance(2), bench.services.timings)
        assert decision is not None
        bench.services.store.save(execution, decision)

    before_shared_write(bench, 2, rescued)
    run_batch(bench, runs)
    moved_on = bench.read(runs[1]).execution
    assert (moved_on.steps["s1"].status, moved_on.steps["s1"].losses) == (StepStatus.READY, 1)
    assert [bench.read(run).execution.status for run in (runs[0], runs[2])] == [COMPLETED] * 2


@pytest.mark.usefixtures("claims_first")
@with_long_delays
def test_a_cancel_during_a_batch_finds_the_steps_that_have_run_and_touches_no_other_run(bench: WorkerHarness) -> None:
    runs = accept_runs(bench, 3)

    def cancelled() -> None:
        execution = bench.services.store.load(PUBLIC_INTEGRATOR, runs[0].id)
        assert execution is not None
        decision = cancel(execution, bench.clock.now())
        assert decision is not None
        bench.services.store.save(execution, decision)

    before_shared_write(bench, 2, cancelled)
    run_batch(bench, runs)
    # All steps had run when it came, so the run is as complete as one whose only step ends in time.
    cancelled_run = bench.read(runs[0]).execution
    assert cancelled_run.cancel is not None
    assert [step.status for step in cancelled_run.steps.values()] == [StepStatus.COMPLETED] * 2
    assert [bench.read(run).execution.status for run in runs] == [COMPLETED] * 3


@pytest.mark.usefixtures("either_way")
@with_long_delays
def test_an_outcome_that_cannot_be_stored_fails_its_own_run_and_no_other(bench: WorkerHarness) -> None:
    runs = accept_runs(bench, 3, "echo")
    save_all, save = bench.batches.__getattr__("save_all"), bench.store.__getattr__("save")

    def refuse(execution: Execution, outputs: Sequence[Any]) -> None:
        if execution.id == runs[1].id and outputs:
            raise NotStorable("the store refuses this content")

    def refusing_all(saves: Sequence[BulkSave]) -> bool:
        for each in saves:
            refuse(each.before.execution, each.decision.outputs)
        written: bool = save_all(saves)
        return written

    def refusing(before: Execution, decision: Any, **options: Any) -> Any:
        refuse(before, decision.outputs)
        return save(before, decision, **options)

    bench.batches.save_all = refusing_all  # type: ignore[attr-defined]
    bench.store.save = refusing  # type: ignore[attr-defined]
    run_batch(bench, runs)
    refused = bench.read(runs[1]).execution
    assert refused.error is not None
    assert (refused.status, refused.error.error_code) == (ExecutionStatus.FAILED, "output_not_serialisable")
    assert [bench.read(run).execution.status for run in (runs[0], runs[2])] == [COMPLETED] * 2


@pytest.mark.usefixtures("either_way")
@with_long_delays
def test_only_fresh_chains_are_claimed_together(bench: WorkerHarness) -> None:
    fresh = bench.accept("echo", "echo")
    both = Basket("bench", PARALLEL, (BasketStep("s1", "echo"), BasketStep("s2", "echo")))
    with_loss = bench.accept("echo", "echo")
    claim_decision = claim(with_loss, "s1", "lost", bench.clock.now(), bench.services.timings)
    assert claim_decision is not None
    rescue_decision = rescue(
        bench.services.store.save(with_loss, claim_decision).execution,
        "s1",
        bench.clock.advance(2),
        bench.services.timings,
    )
    assert rescue_decision is not None
    running = bench.services.store.load(PUBLIC_INTEGRATOR, with_loss.id)
    assert running is not None
    bench.services.store.save(running, rescue_decision)
    others = [bench.accept("echo", basket=both), bench.accept("echo", stateful=True), with_loss]
    claimed_together: list[str] = []
    real = bench.batches.__getattr__("save_all")

    def save_all(saves: Sequence[BulkSave]) -> bool:
        claimed_together.extend(save.before.execution.id for save in saves)
        written: bool = real(saves)
        return written

    bench.batches.save_all = save_all  # type: ignore[attr-defined]
    runner = bench.runner()
    run_batch(bench, [*others, fresh], runner)
    runner.run_message(bench.message_of(others[0], "s2"))
    assert set(claimed_together) == {fresh.id}
    assert all(bench.read(run).execution.status is COMPLETED for run in (*others, fresh))


class Slow:
    """An agent that is quick, except for the run whose ``n`` is 1: there it waits until a test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def run(self, given: dict[str, Any], _: AgentContext) -> Any:
        if given["n"] == 1:
            self.entered.set()
            assert self.open.wait(10)
        return given


def run_beside_slow_step(bench: WorkerHarness, slow: Slow, runs: Sequence[Execution]) -> threading.Thread:
    """Run the messages of ``runs`` in another thread; delays become short again once the slow step runs."""
    runner = bench.runner(echo=slow.run)
    thread = threading.Thread(target=run_batch, args=(bench, runs, runner), daemon=True)
    thread.start()
    assert slow.entered.wait(5)
    set_write_delay(WRITE_DELAY_MAX_S)
    return thread


@with_long_delays
def test_beside_a_slow_step_outcomes_are_saved_and_prefetched_messages_are_given_back(
    bench: WorkerHarness, *, either_way: bool
) -> None:
    runs, slow = accept_runs(bench, 4, "echo"), Slow()
    late = accept_runs(bench, 1, "echo")[0]
    decision = claim(late, "s1", "elsewhere", bench.clock.now(), bench.services.timings)
    assert decision is not None
    bench.services.store.save(late, decision)  # its message is run alone, and is not begun either
    thread = run_beside_slow_step(bench, slow, [*runs, late])
    wait_until(
        lambda: bench.services.redis.llen("default") == 3, what="the messages that were not begun are sent again"
    )
    done = bench.read(runs[0])
    assert done.execution.status is COMPLETED
    assert parse_header(bench.services.views.get(runs[0].integrator, runs[0].id) or b"").is_done, (
        "its view is published too"
    )
    wait_until(
        lambda: bench.read(runs[1]).execution.steps["s1"].status is StepStatus.RUNNING, what="its claim is stored"
    )
    released = [bench.read(run).execution.steps["s1"] for run in runs[2:]]
    assert {(step.status, step.claims, step.failures, step.losses) for step in released} == {
        (StepStatus.READY, 0 if either_way else 1, 0, 0)
    }
    dequeuer = Dequeuer(bench.services.redis, ["default"])
    messages = [message for _ in range(3) for message in dequeuer.dequeue().messages]
    assert {message.execution_id for message in messages} == {runs[2].id, runs[3].id, late.id}
    slow.open.set()
    thread.join(5)
    for message in messages:
        bench.runner().run_message(message)
    assert [bench.read(run).execution.status for run in runs] == [COMPLETED] * 4


@with_long_delays
def test_beside_a_slow_last_step_outcomes_are_saved(bench: WorkerHarness) -> None:
    runs, slow = accept_runs(bench, 2, "echo"), Slow()
    thread = run_beside_slow_step(bench, slow, runs)
    wait_until(
        lambda: b'"done":true' in (bench.services.views.get(runs[0].integrator, runs[0].id) or b""),
        what="the view of the finished run is published",
    )
    slow.open.set()
    thread.join(5)
    assert [bench.read(run).execution.status for run in runs] == [COMPLETED] * 2


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("lost_replies", [0, 1])
@with_long_delays
def test_a_worker_that_drains_gives_back_prefetched_messages(bench: WorkerHarness, lost_replies: int) -> None:
    """Also if it does not know whether its claims are stored, because the reply to their write was lost."""
    runs, runner = accept_runs(bench, 3, "echo"), bench.runner()
    bench.batches.fail("save_all", after=lost_replies)
    drain = runner._interrupter._slots.begin_drain

    def draining(given: dict[str, Any], _: AgentContext) -> Any:
        drain()
        return given

    runner._agent_runner._agents = {"echo": replace(bench.agents["echo"], run=draining)}
    run_batch(bench, runs, runner)
    assert bench.read(runs[0]).execution.status is COMPLETED
    released = [bench.read(run).execution.steps["s1"] for run in runs[1:]]
    assert {(step.status, step.failures, step.losses) for step in released} == {(StepStatus.READY, 0, 0)}
    assert bench.services.redis.llen(list_key("default", PRIORITY_REOFFER)) == 2


@pytest.mark.usefixtures("claims_first")
@with_long_delays
def test_of_claims_that_are_given_back_while_the_store_is_away_one_is_looked_for(bench: WorkerHarness) -> None:
    """Each look may take a deadline, in the thread that renews leases."""
    runs, runner = accept_runs(bench, 5, "echo"), bench.runner()
    bench.batches.fail("save_all", after=1)

    def draining(given: dict[str, Any], _: AgentContext) -> Any:
        runner._interrupter._slots.begin_drain()
        bench.store.fail("load", before=9)
        bench.store.calls["load"] = 0
        return given

    runner._agent_runner._agents = {"echo": replace(bench.agents["echo"], run=draining)}
    run_batch(bench, runs, runner)
    assert bench.store.calls["load"] == 1
    assert bench.services.redis.llen(list_key("default", PRIORITY_REOFFER)) == 4


def test_a_message_that_comes_while_the_worker_drains_is_sent_again(bench: WorkerHarness) -> None:
    run, runner = bench.accept("echo"), bench.runner()
    runner._interrupter._slots.begin_drain()
    runner.run_message(bench.message_of(run))
    assert bench.read(run).execution == run
    assert bench.services.redis.llen(list_key("default", PRIORITY_REOFFER)) == 1


def test_the_batch_size_doubles_after_quick_runs_and_falls_after_a_slow_one() -> None:
    sizer = BatchSizer()
    sizes = []
    for _ in range(6):
        sizer.record_duration(QUICK_RUN_MAX_S / 2)
        sizes.append(sizer.next_size())
    assert sizes == [2, 4, 8, 16, BATCH_SIZE_MAX, BATCH_SIZE_MAX]
    assert sizer.next_size() == BATCH_SIZE_MAX, "nothing ran, so the size does not change"
    sizer.record_duration(QUICK_RUN_MAX_S / 2)
    sizer.record_duration(QUICK_RUN_MAX_S * 2)
    assert sizer.next_size() == BATCH_SIZE_MAX // 2
    sizer.record_duration(WRITE_DELAY_MAX_S)
    assert sizer.next_size() == 1
