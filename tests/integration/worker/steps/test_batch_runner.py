"""Several bells at once cost few trips, and each run is recorded as it would be alone, whatever comes between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from shared.domain.definitions.basket import PARALLEL, Basket, BasketStep
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.transitions import cancel, claim, rescue
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import NotStorable
from shared.live import log_stream
from shared.live.log_stream import LogFilter
from shared.live.render import parse_header, render
from shared.queue.dequeue import Dequeuer
from shared.queue.message import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER, enqueue, list_key
from shared.store.executions.port import BulkSave
from tests.integration.worker.conftest import Bench
from tests.waiting import wait_until
from worker.context import AgentContext
from worker.steps.batch_runner import BATCH_SIZE_MAX, QUICK_RUN_MAX_S, BatchSizer
from worker.steps.heartbeat import TICK_S
from worker.steps.pending_writes import WRITE_DELAY_MAX_S
from worker.steps.runner import Runner

COMPLETED = ExecutionStatus.COMPLETED
CHAIN = ["step.started", "step.completed", "step.started", "step.completed", "execution.completed"]


def accepted(bench: Bench, count: int, *agents: str) -> list[Execution]:
    return [bench.accept(*(agents or ("echo", "echo")), given={"n": number}) for number in range(count)]


def answer(bench: Bench, runs: Sequence[Execution], runner: Runner | None = None) -> None:
    """Answer the bells of ``runs`` as a runner that took them all together."""
    batches = (runner or bench.runner())._batch_runner
    batches.run([bench.bell(run) for run in runs])


def check_recorded_once(bench: Bench, runs: Sequence[Execution], attempts: int = 1) -> None:
    """See each run completed, each step recorded once and by so many claims, and the view as MongoDB has it."""
    for number, run in enumerate(runs):
        record = bench.read(run)
        told = [event.event for event in record.events if event.event != "execution.accepted"]
        assert record.execution.status is COMPLETED
        assert told == CHAIN
        assert {step.claims for step in record.execution.steps.values()} == {attempts}
        assert orjson.loads(record.outputs["s2"])["n"] == number
        assert bench.services.views.get(run.id) == render(record), "told as it was written, rev and lines too"


patiently = pytest.mark.usefixtures("patient")


@patiently
def test_several_runs_share_a_load_a_claim_and_an_end(bench: Bench) -> None:
    runs = accepted(bench, 5)
    answer(bench, runs)
    check_recorded_once(bench, runs)
    assert dict(bench.batches.asked) == {"load_all": 1, "save_all": 2}
    assert (bench.store.asked["load"], bench.store.asked["save"]) == (0, 0)
    told = [
        (line["execution_id"], line["seq"])
        for line in log_stream.read_latest(bench.services.redis, LogFilter(), 100).lines
    ]
    assert sorted(told) == sorted((run.id, seq) for run in runs for seq in range(2, 7)), "each line once"
    assert bench.services.views.get_output(runs[0].id, "s1") == b'{"n":0}'
    assert bench.services.redis.hget("metrics:executions", '["bench","completed"]') == b"5"


@patiently
def test_a_runner_takes_more_at_once_as_its_runs_prove_quick(bench: Bench) -> None:
    runs = accepted(bench, 60, "echo")
    for run in runs[1:]:
        enqueue(bench.services.redis, bench.bell(run), "default", PRIORITY_FIRST_OFFER)
    runner = bench.runner()
    runner._batch_sizer = BatchSizer(quick_run_max_s=60.0)
    runner.run_message_and_backlog(bench.bell(runs[0]))
    while bells := runner._dequeue():  # it is polite, and goes back to Celery after a second
        runner._batch_runner.run(bells)
    assert all(bench.read(run).execution.status is COMPLETED for run in runs)
    assert 0 < bench.batches.asked["load_all"] < 20


@patiently
@pytest.mark.parametrize("place", range(2))
@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_shared_write_that_fails_before_or_after_it_is_written_records_each_run_once(
    bench: Bench, fault: str, place: int
) -> None:
    runs, saves = accepted(bench, 4), iter(range(9))
    real = bench.batches.__getattr__("save_all")

    def save_all(asked: Sequence[BulkSave]) -> bool:
        if next(saves) == place:
            bench.batches.fail("save_all", **{fault: 1})
            bench.store.fail("save", **{fault: 2})
        written: bool = real(asked)
        return written

    bench.batches.save_all = save_all  # type: ignore[attr-defined]
    answer(bench, runs)
    check_recorded_once(bench, runs)


@patiently
def test_a_load_that_is_not_answered_leaves_each_bell_to_itself(bench: Bench) -> None:
    runs = accepted(bench, 3)
    bench.batches.fail("load_all", before=1)
    answer(bench, runs)
    check_recorded_once(bench, runs)


@patiently
def test_a_bell_that_comes_twice_in_a_batch_runs_once(bench: Bench) -> None:
    runs = accepted(bench, 3)
    answer(bench, [runs[0], *runs, runs[2]])
    check_recorded_once(bench, runs)
    assert bench.store.asked["save"] == 0, "a doubled bell does not spoil the claim of the others"


def between(bench: Bench, number: int, act: Callable[[], None]) -> None:
    """Do ``act`` just before the ``number``-th shared write."""
    real, saves = bench.batches.__getattr__("save_all"), iter(range(1, 99))

    def save_all(asked: Sequence[BulkSave]) -> bool:
        if next(saves) == number:
            act()
        written: bool = real(asked)
        return written

    bench.batches.save_all = save_all  # type: ignore[attr-defined]


@patiently
def test_a_run_that_another_worker_claims_meanwhile_is_dropped_and_no_other(bench: Bench) -> None:
    runs = accepted(bench, 3)

    def claimed_elsewhere() -> None:
        theirs = claim(runs[1], "s1", "theirs", bench.hand.now(), bench.services.timings)
        assert theirs is not None
        bench.services.store.save(runs[1], theirs)

    between(bench, 1, claimed_elsewhere)
    ran: list[int] = []

    def agent(given: dict[str, Any], _: AgentContext) -> Any:
        ran.append(given["n"])
        return given

    answer(bench, runs, bench.runner(echo=agent))
    assert ran == [0, 0, 2, 2], "the one that is another's is not run"
    theirs = bench.read(runs[1]).execution
    assert (theirs.status, theirs.steps["s1"].token) == (ExecutionStatus.RUNNING, "theirs")
    for run in (runs[0], runs[2]):
        assert [event.event for event in bench.read(run).events][1:] == CHAIN


@patiently
def test_an_outcome_whose_lease_was_lost_is_refused_and_no_other(bench: Bench) -> None:
    runs = accepted(bench, 3)

    def rescued() -> None:
        seen = bench.services.store.load(PUBLIC_INTEGRATOR, runs[1].id)
        assert seen is not None
        lost = rescue(seen, "s1", bench.hand.forward(2), bench.services.timings)
        assert lost is not None
        bench.services.store.save(seen, lost)

    between(bench, 2, rescued)
    answer(bench, runs)
    moved_on = bench.read(runs[1]).execution
    assert (moved_on.steps["s1"].status, moved_on.steps["s1"].losses) == (StepStatus.READY, 1)
    assert [bench.read(run).execution.status for run in (runs[0], runs[2])] == [COMPLETED] * 2


@patiently
def test_a_cancel_that_comes_between_stops_its_run_alone(bench: Bench) -> None:
    runs = accepted(bench, 3)

    def cancelled() -> None:
        seen = bench.services.store.load(PUBLIC_INTEGRATOR, runs[0].id)
        assert seen is not None
        asked = cancel(seen, bench.hand.now())
        assert asked is not None
        bench.services.store.save(seen, asked)

    between(bench, 2, cancelled)
    answer(bench, runs)
    assert bench.read(runs[0]).execution.status is ExecutionStatus.CANCELLED
    assert [bench.read(run).execution.status for run in runs[1:]] == [COMPLETED] * 2


@patiently
def test_an_outcome_that_cannot_be_stored_fails_its_own_run_and_no_other(bench: Bench) -> None:
    runs = accepted(bench, 3, "echo")
    save_all, save = bench.batches.__getattr__("save_all"), bench.store.__getattr__("save")

    def refuse(execution: Execution, outputs: Sequence[Any]) -> None:
        if execution.id == runs[1].id and outputs:
            raise NotStorable("the store refuses this content")

    def refusing_all(saves: Sequence[BulkSave]) -> bool:
        for each in saves:
            refuse(each.before.execution, each.decision.outputs)
        written: bool = save_all(saves)
        return written

    def refusing(before: Execution, advance: Any, **options: Any) -> Any:
        refuse(before, advance.outputs)
        return save(before, advance, **options)

    bench.batches.save_all = refusing_all  # type: ignore[attr-defined]
    bench.store.save = refusing  # type: ignore[attr-defined]
    answer(bench, runs)
    refused = bench.read(runs[1]).execution
    assert refused.error is not None
    assert (refused.status, refused.error.error_code) == (ExecutionStatus.FAILED, "output_not_serialisable")
    assert [bench.read(run).execution.status for run in (runs[0], runs[2])] == [COMPLETED] * 2


@patiently
def test_only_fresh_chains_are_claimed_together(bench: Bench) -> None:
    fresh = bench.accept("echo", "echo")
    both = Basket("bench", PARALLEL, (BasketStep("s1", "echo"), BasketStep("s2", "echo")))
    bore_a_loss = bench.accept("echo", "echo")
    held = claim(bore_a_loss, "s1", "lost", bench.hand.now(), bench.services.timings)
    assert held is not None
    lost = rescue(
        bench.services.store.save(bore_a_loss, held).execution, "s1", bench.hand.forward(2), bench.services.timings
    )
    assert lost is not None
    running = bench.services.store.load(PUBLIC_INTEGRATOR, bore_a_loss.id)
    assert running is not None
    bench.services.store.save(running, lost)
    others = [bench.accept("echo", basket=both), bench.accept("echo", stateful=True), bore_a_loss]
    together: list[str] = []
    real = bench.batches.__getattr__("save_all")

    def save_all(saves: Sequence[BulkSave]) -> bool:
        together.extend(save.before.execution.id for save in saves)
        written: bool = real(saves)
        return written

    bench.batches.save_all = save_all  # type: ignore[attr-defined]
    runner = bench.runner()
    answer(bench, [*others, fresh], runner)
    runner.run_message(bench.bell(others[0], "s2"))
    assert set(together) == {fresh.id}
    assert all(bench.read(run).execution.status is COMPLETED for run in (*others, fresh))


class Slow:
    """An agent that is quick, but for the run whose ``n`` is 1: there it waits until a test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def run(self, given: dict[str, Any], _: AgentContext) -> Any:
        if given["n"] == 1:
            self.entered.set()
            assert self.open.wait(10)
        return given


def slowly(bench: Bench, slow: Slow, runs: Sequence[Execution]) -> threading.Thread:
    """Answer the bells of ``runs`` beside; only once the slow one runs does it count how long things take."""
    runner = bench.runner(echo=slow.run)
    thread = threading.Thread(target=answer, args=(bench, runs, runner), daemon=True)
    thread.start()
    assert slow.entered.wait(5)
    runner._batch_runner._write_delay_max_s = WRITE_DELAY_MAX_S
    runner._batch_runner._writer._due_after_s = WRITE_DELAY_MAX_S - TICK_S
    return thread


@patiently
def test_beside_a_slow_step_what_is_done_is_written_and_what_is_not_begun_is_given_back(bench: Bench) -> None:
    runs, slow = accepted(bench, 4, "echo"), Slow()
    late = accepted(bench, 1, "echo")[0]
    held = claim(late, "s1", "elsewhere", bench.hand.now(), bench.services.timings)
    assert held is not None
    bench.services.store.save(late, held)  # a bell that is answered alone, and not begun either
    thread = slowly(bench, slow, [*runs, late])
    wait_until(lambda: bench.services.redis.llen("default") == 3, what="what was not begun is offered again")
    done = bench.read(runs[0])
    assert done.execution.status is COMPLETED
    assert parse_header(bench.services.views.get(runs[0].id) or b"").is_done, "it is shown, too"
    assert bench.read(runs[1]).execution.steps["s1"].status is StepStatus.RUNNING
    back = [bench.read(run).execution.steps["s1"] for run in runs[2:]]
    assert {(step.status, step.claims, step.failures, step.losses) for step in back} == {(StepStatus.READY, 1, 0, 0)}
    taker = Dequeuer(bench.services.redis, ["default"])
    bells = [bell for _ in range(3) for bell in taker.dequeue().messages]
    assert {bell.execution_id for bell in bells} == {runs[2].id, runs[3].id, late.id}
    slow.open.set()
    thread.join(5)
    for bell in bells:
        bench.runner().run_message(bell)
    assert [bench.read(run).execution.status for run in runs] == [COMPLETED] * 4


@patiently
def test_beside_a_slow_step_that_is_the_last_what_is_done_is_written(bench: Bench) -> None:
    runs, slow = accepted(bench, 2, "echo"), Slow()
    thread = slowly(bench, slow, runs)
    wait_until(lambda: b'"done":true' in (bench.services.views.get(runs[0].id) or b""), what="what is done is shown")
    slow.open.set()
    thread.join(5)
    assert [bench.read(run).execution.status for run in runs] == [COMPLETED] * 2


@patiently
def test_a_worker_that_drains_gives_back_what_it_has_not_begun(bench: Bench) -> None:
    runs, runner = accepted(bench, 3, "echo"), bench.runner()
    drain = runner._interrupter._slots.begin_drain

    def draining(given: dict[str, Any], _: AgentContext) -> Any:
        drain()
        return given

    runner._agent_runner._agents = {"echo": replace(bench.agents["echo"], run=draining)}
    answer(bench, runs, runner)
    assert bench.read(runs[0]).execution.status is COMPLETED
    back = [bench.read(run).execution.steps["s1"] for run in runs[1:]]
    assert {(step.status, step.failures, step.losses) for step in back} == {(StepStatus.READY, 0, 0)}
    assert bench.services.redis.llen(list_key("default", PRIORITY_REOFFER)) == 2


def test_a_pace_doubles_while_runs_are_quick_and_falls_with_a_slow_one() -> None:
    pace = BatchSizer()
    grown = []
    for _ in range(5):
        pace.record_duration(QUICK_RUN_MAX_S / 2)
        grown.append(pace.next_size())
    assert grown == [2, 4, 8, BATCH_SIZE_MAX, BATCH_SIZE_MAX]
    assert pace.next_size() == BATCH_SIZE_MAX, "nothing ran, nothing is learnt"
    pace.record_duration(QUICK_RUN_MAX_S / 2)
    pace.record_duration(QUICK_RUN_MAX_S * 2)
    assert pace.next_size() == BATCH_SIZE_MAX // 2
    pace.record_duration(WRITE_DELAY_MAX_S)
    assert pace.next_size() == 1
