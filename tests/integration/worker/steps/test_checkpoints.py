"""Checkpoints of a step, and agent memory: the last output of an agent for its next run."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import orjson
import pytest

from shared.domain.execution import Execution, Lease
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, start_retry
from shared.domain.lifecycle.transitions import claim
from shared.domain.status import ExecutionStatus
from shared.errors import LeaseLost, Unavailable
from shared.ids import new_execution_id
from tests.integration.worker.conftest import WorkerHarness
from tests.waiting import wait_until
from worker.agent_errors import PermanentError
from worker.context import AgentContext
from worker.steps.checkpoints import StepCheckpoints
from worker.steps.claims import ClaimedStep
from worker.steps.pending_writes import PendingWrites
from worker.steps.protection.step_protection import StepProtection
from worker.steps.report_buffer import ReportBuffer
from worker.supervision.shared_slots import SharedSlots
from worker.supervision.step_interrupter import StepInterrupter


def large_outputs(bench: WorkerHarness) -> int:
    return bench.services.database.collection("outputs").count_documents({})


@pytest.mark.parametrize("pad", [10, 100_000])
def test_the_next_attempt_restores_the_last_checkpoint(bench: WorkerHarness, pad: int) -> None:
    run = bench.accept("echo")
    restored: list[Any] = []

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        restored.append(ctx.restore())
        if ctx.attempt == 1:
            ctx.checkpoint({"page": 1, "pad": "x" * pad})
            ctx.checkpoint({"page": 2, "pad": "x" * pad})
            assert ctx.restore() == {"page": 2, "pad": "x" * pad}
            bench.lose_worker(run)
            runner.run_message(bench.message_of(run))
            with pytest.raises(LeaseLost):
                ctx.checkpoint({"page": 3})
            assert ctx.cancelled, "it is asked to stop"
        return {"by": ctx.attempt}

    runner = bench.runner(echo=agent)
    runner.run_message(bench.message_of(run))
    assert restored == [None, {"page": 2, "pad": "x" * pad}]
    record = bench.read(run)
    assert orjson.loads(record.outputs["s1"]) == {"by": 2}
    document = bench.services.database.collection("executions").find_one({"_id": run.id})
    assert document is not None
    assert not document["checkpoints"], "deleted by the completing write"
    assert large_outputs(bench) == 0


@pytest.mark.parametrize("pad", [10, 100_000])
def test_a_retry_of_a_failed_run_goes_on_at_its_checkpoint_and_one_from_the_start_does_not(
    bench: WorkerHarness, pad: int
) -> None:
    restored: list[Any] = []

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        restored.append((ctx.restore() or {}).get("page"))
        if len(restored) == 1:
            ctx.checkpoint({"page": 7, "pad": "x" * pad})
        if len(restored) < 3:
            raise PermanentError("the provider is gone")
        ctx.checkpoint({"page": 8, "pad": "x" * pad})
        return {}

    runner = bench.runner(echo=agent)

    def retry(run: Execution, start_from: RetryFrom) -> Execution:
        bench.clock.advance(1)
        request = RetryRequest(new_execution_id(bench.clock.now()), bench.clock.now(), "req-retry")
        decision, outputs = start_retry(bench.read(run), request, start_from, bench.services.timings)
        retried = bench.services.store.create(decision, outputs)
        runner.run_message(bench.message_of(retried))
        return retried

    first = bench.accept("echo")
    runner.run_message(bench.message_of(first))
    second = retry(first, RetryFrom.FAILED)
    third = retry(second, RetryFrom.FAILED)
    anew = retry(second, RetryFrom.START)
    lease = Lease(anew.integrator, anew.id, "s1", 2, "token-2")
    assert bench.services.checkpoints.load_newest(lease) is None
    assert restored == [None, 7, 7, None], "the second had none of its own"
    assert bench.read(third).execution.status is ExecutionStatus.COMPLETED
    assert large_outputs(bench) == (1 if pad > 10 else 0), "the one of the run that failed"


def test_a_checkpoint_first_saves_the_pending_claim_of_its_own_step(bench: WorkerHarness) -> None:
    run = bench.accept("echo", "memo")
    stored: list[Any] = []

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        ctx.checkpoint({"n": 1})
        document = bench.services.database.collection("executions").find_one({"_id": run.id})
        assert document is not None
        stored.append((document["steps"]["s2"]["status"], document["checkpoints"]["s2"]["json"]))
        return {}

    bench.runner(memo=agent).run_message(bench.message_of(run))
    assert stored == [("running", b'{"n":1}')]
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ([1], "must be an object"),
        (None, "must be an object"),
        ({"a": float("nan")}, "/a is nan"),
        ({"a": object()}, "/a is a object"),
        ({"a": 2**63}, "beyond 64 bits"),
        ({"a": "x" * (4 * 1024 * 1024)}, "at most 4194304"),
    ],
    ids=["list", "none", "nan", "object", "bigint", "large"],
)
def test_an_invalid_checkpoint_raises_into_the_agent(bench: WorkerHarness, state: Any, fault: str) -> None:
    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        ctx.checkpoint({"good": 1})
        with pytest.raises(ValueError, match=fault):
            ctx.checkpoint(state)
        assert ctx.restore() == {"good": 1}
        return {"went": "on"}

    run = bench.accept("echo")
    bench.runner(echo=agent).run_message(bench.message_of(run))
    assert orjson.loads(bench.read(run).outputs["s1"]) == {"went": "on"}


def test_a_checkpoint_waits_for_a_store_that_is_away_until_the_step_is_asked_to_stop(bench: WorkerHarness) -> None:
    class Away:
        def __init__(self) -> None:
            self.asked = 0

        def save(self, *_: Any, **__: Any) -> bool:
            self.asked += 1
            if self.asked == 3:
                contexts[0].cancel.set()
            raise Unavailable

        def delete_external(self, *_: Any) -> None:
            raise Unavailable

    contexts: list[AgentContext] = []
    away = Away()

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        contexts.append(ctx)
        ctx.checkpoint({"pad": "x" * 100_000})
        return {}

    bench.services = replace(bench.services, checkpoints=away)  # type: ignore[arg-type]
    run = bench.accept("echo")
    bench.runner(echo=agent).run_message(bench.message_of(run))
    assert away.asked == 3
    assert bench.read(run).execution.steps["s1"].failures == 1, "a transient failure: the step is tried again"


def test_other_threads_of_an_agent_may_store_checkpoints_too(bench: WorkerHarness) -> None:
    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        thread = threading.Thread(target=ctx.checkpoint, args=({"n": 1},))
        thread.start()
        thread.join()
        return {"restored": ctx.restore()}

    run = bench.accept("echo")
    bench.runner(echo=agent).run_message(bench.message_of(run))
    assert orjson.loads(bench.read(run).outputs["s1"]) == {"restored": {"n": 1}}


def test_a_retry_gives_its_agents_the_idempotency_keys_of_the_first_execution(bench: WorkerHarness) -> None:
    keys: list[str] = []

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        keys.append(ctx.idempotency_key)
        return {}

    run = bench.accept("echo", effects_of="1763700000_00000000000000aa")
    bench.runner(echo=agent).run_message(bench.message_of(run))
    assert keys == ["1763700000_00000000000000aa:s1"]


def test_an_agent_memory_that_is_not_stored_fails_no_run(bench: WorkerHarness) -> None:
    class Away:
        def remember(self, *_: Any) -> None:
            raise Unavailable

        def recall(self, *_: Any) -> bytes | None:
            return None

    bench.services = replace(bench.services, agent_memory=Away())  # type: ignore[arg-type]
    run = bench.accept("memo")
    bench.runner().run_message(bench.message_of(run))
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED


def test_a_checkpoint_that_finds_the_lease_lost_asks_the_step_to_stop(bench: WorkerHarness) -> None:
    run = bench.accept("echo")
    decision = claim(run, "s1", "token", bench.clock.now(), bench.services.timings)
    assert decision is not None
    record = bench.services.store.save(run, decision)
    lease = record.execution.lease_of("s1")
    slots = SharedSlots(1)
    interrupter = StepInterrupter(slots, slots.slot(0), grace_s=1, drain_s=1)
    pending_writes = PendingWrites(bench.services, record, lease, published_seq=0, give_up=lambda: False)
    reporter = ReportBuffer("echo", "s1", bench.clock.now)
    claimed_step = ClaimedStep(record.execution, lease, pending_writes, reporter, {})
    bench.lose_worker(run)
    with interrupter.enforce_limits(lease, 60) as running_step, interrupter.interruptible(running_step):
        checkpoints = StepCheckpoints(
            bench.services.checkpoints,
            bench.services.store,
            claimed_step,
            interrupter,
            running_step,
            protection=StepProtection(bench.services),
        )
        with pytest.raises(LeaseLost):
            checkpoints.save({})
        assert (running_step.stop_reason, running_step.cancel.is_set(), running_step.is_in_agent) == (
            "lost",
            True,
            True,
        )


def test_no_interrupt_comes_during_a_call_to_the_store(bench: WorkerHarness) -> None:
    in_agent: list[bool] = []
    slots = SharedSlots(1)
    interrupter = StepInterrupter(slots, slots.slot(0), grace_s=1, drain_s=1)
    lease = Lease("public", "run", "s1", 1, "token")
    with interrupter.enforce_limits(lease, 60) as running_step, interrupter.interruptible(running_step):
        with interrupter.uninterruptible(running_step):
            in_agent.append(running_step.is_in_agent)
        in_agent.append(running_step.is_in_agent)
    assert in_agent == [False, True]


def test_what_a_checkpoint_took_along_is_shown_although_the_heartbeat_finds_nothing_to_report(
    bench: WorkerHarness,
) -> None:
    bench.services = replace(bench.services, settings=replace(bench.services.settings, heartbeat_s=20, lease_s=60))
    run = bench.accept("echo")

    def shows(message: str) -> bool:
        return message.encode() in (bench.services.views.get(run.integrator, run.id) or b"")

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        for number in (1, 2):
            ctx.log(f"line {number}")
            ctx.checkpoint({"n": number})
            wait_until(lambda expected=f"line {number}": shows(expected), 10)
        return {}

    bench.runner(echo=agent).run_message(bench.message_of(run))
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED, bench.read(run).execution.error


def test_a_checkpoint_takes_the_lines_and_the_progress_before_it_along(bench: WorkerHarness) -> None:
    """Whatever happens to the process next: what was said before a stored checkpoint is stored too."""
    run, found = bench.accept("echo"), list[Any]()

    def agent(_: dict[str, Any], context: AgentContext) -> dict[str, Any]:
        context.log("said before")
        context.progress(0.4, "nearly half")
        context.checkpoint({"n": 1})
        record = bench.read(run)
        step = record.execution.steps["s1"]
        found.append(([event.message for event in record.events], step.percent, step.message))
        return {}

    bench.runner(echo=agent).run_message(bench.message_of(run))
    ((messages, percent, message),) = found
    assert "said before" in messages
    assert (percent, message) == (40, "nearly half")
    assert [event.message for event in bench.read(run).events].count("said before") == 1
