"""What an agent keeps of its work: checkpoints within a step, its last output for the next run."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import orjson
import pytest

from shared.domain.execution import Lease
from shared.domain.lifecycle.transitions import claim
from shared.domain.status import ExecutionStatus
from shared.errors import LeaseLost, Unavailable
from tests.integration.worker.conftest import Bench
from worker.context import AgentContext
from worker.steps.checkpoints import StepCheckpoints
from worker.steps.pending_writes import PendingWrites
from worker.supervision.shared_slots import SharedSlots
from worker.supervision.step_interrupter import StepInterrupter


def large(bench: Bench) -> int:
    return bench.services.database.collection("outputs").count_documents({})


@pytest.mark.parametrize("pad", [10, 100_000])
def test_the_next_attempt_restores_what_the_last_one_kept(bench: Bench, pad: int) -> None:
    run = bench.accept("echo")
    restored: list[Any] = []

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        restored.append(ctx.restore())
        if ctx.attempt == 1:
            ctx.checkpoint({"page": 1, "pad": "x" * pad})
            ctx.checkpoint({"page": 2, "pad": "x" * pad})
            assert ctx.restore() == {"page": 2, "pad": "x" * pad}
            bench.lose(run)
            runner.run_message(bench.bell(run))
            with pytest.raises(LeaseLost):
                ctx.checkpoint({"page": 3})
            assert ctx.cancelled, "it is asked to stop"
        return {"by": ctx.attempt}

    runner = bench.runner(echo=agent)
    runner.run_message(bench.bell(run))
    assert restored == [None, {"page": 2, "pad": "x" * pad}]
    record = bench.read(run)
    assert orjson.loads(record.outputs["s1"]) == {"by": 2}
    document = bench.services.database.collection("executions").find_one({"_id": run.id})
    assert document is not None
    assert not document["checkpoints"], "gone with the completing write"
    assert large(bench) == 0


def test_a_checkpoint_of_a_step_whose_claim_waits_in_the_draft_is_stored_by_its_own_lease(bench: Bench) -> None:
    run = bench.accept("echo", "memo")
    stored: list[Any] = []

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        ctx.checkpoint({"n": 1})
        document = bench.services.database.collection("executions").find_one({"_id": run.id})
        assert document is not None
        stored.append((document["steps"]["s2"]["status"], document["checkpoints"]["s2"]["json"]))
        return {}

    bench.runner(memo=agent).run_message(bench.bell(run))
    assert stored == [("running", b'{"n":1}')]
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED


@pytest.mark.parametrize(
    ("state", "said"),
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
def test_what_cannot_be_kept_is_the_agents_to_mend(bench: Bench, state: Any, said: str) -> None:
    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        ctx.checkpoint({"good": 1})
        with pytest.raises(ValueError, match=said):
            ctx.checkpoint(state)
        assert ctx.restore() == {"good": 1}
        return {"went": "on"}

    run = bench.accept("echo")
    bench.runner(echo=agent).run_message(bench.bell(run))
    assert orjson.loads(bench.read(run).outputs["s1"]) == {"went": "on"}


def test_a_checkpoint_waits_for_a_store_that_is_away_until_the_step_is_asked_to_stop(bench: Bench) -> None:
    class Away:
        def __init__(self) -> None:
            self.asked = 0

        def keep(self, *_: Any, **__: Any) -> bool:
            self.asked += 1
            if self.asked == 3:
                contexts[0].cancel.set()
            raise Unavailable

        def clear(self, *_: Any) -> None:
            raise Unavailable

    contexts: list[AgentContext] = []
    away = Away()

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        contexts.append(ctx)
        ctx.checkpoint({"pad": "x" * 100_000})
        return {}

    bench.services = replace(bench.services, checkpoints=away)  # type: ignore[arg-type]
    run = bench.accept("echo")
    bench.runner(echo=agent).run_message(bench.bell(run))
    assert away.asked == 3
    assert bench.read(run).execution.steps["s1"].failures == 1, "a fault that may pass: it is tried again"


def test_an_agents_other_threads_may_keep_checkpoints_too(bench: Bench) -> None:
    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        thread = threading.Thread(target=ctx.checkpoint, args=({"n": 1},))
        thread.start()
        thread.join()
        return {"kept": ctx.restore()}

    run = bench.accept("echo")
    bench.runner(echo=agent).run_message(bench.bell(run))
    assert orjson.loads(bench.read(run).outputs["s1"]) == {"kept": {"n": 1}}


def test_a_retry_hands_its_agents_the_first_executions_keys(bench: Bench) -> None:
    keys: list[str] = []

    def agent(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
        keys.append(ctx.idempotency_key)
        return {}

    run = bench.accept("echo", effects_of="1763700000_00000000000000aa")
    bench.runner(echo=agent).run_message(bench.bell(run))
    assert keys == ["1763700000_00000000000000aa:s1"]


def test_a_memory_that_is_not_kept_fails_no_run(bench: Bench) -> None:
    class Away:
        def remember(self, *_: Any) -> None:
            raise Unavailable

        def recall(self, *_: Any) -> bytes | None:
            return None

    bench.services = replace(bench.services, agent_memory=Away())  # type: ignore[arg-type]
    run = bench.accept("memo")
    bench.runner().run_message(bench.bell(run))
    assert bench.read(run).execution.status is ExecutionStatus.COMPLETED


def test_a_lost_lease_asks_the_step_to_stop_before_any_heartbeat_finds_it_out(bench: Bench) -> None:
    run = bench.accept("echo")
    advance = claim(run, "s1", "token", bench.hand.now(), bench.services.timings)
    assert advance is not None
    record = bench.services.store.save(run, advance)
    lease = record.execution.lease_of("s1")
    slots = SharedSlots(1)
    minder = StepInterrupter(slots, slots.slot(0), grace_s=1, drain_s=1, finish=lambda *_: None)
    draft = PendingWrites(bench.services, record, lease, published_seq=0, give_up=lambda: False)
    bench.lose(run)
    with minder.enforce_limits(lease, 60) as minded, minder.interruptible(minded):
        checkpoints = StepCheckpoints(bench.services, record.execution, draft, minder=minder, minded=minded)
        with pytest.raises(LeaseLost):
            checkpoints.save({})
        assert (minded.stop_reason, minded.cancel.is_set(), minded.is_in_agent) == ("lost", True, True)


def test_no_interrupt_comes_while_the_store_is_asked(bench: Bench) -> None:
    seen: list[bool] = []
    slots = SharedSlots(1)
    minder = StepInterrupter(slots, slots.slot(0), grace_s=1, drain_s=1, finish=lambda *_: None)
    lease = Lease("public", "run", "s1", 1, "token")
    with minder.enforce_limits(lease, 60) as minded, minder.interruptible(minded):
        with minder.uninterruptible(minded):
            seen.append(minded.is_in_agent)
        seen.append(minded.is_in_agent)
    assert seen == [False, True]
