"""What is overdue is offered again, once, and not before it can be told from what only waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import Timestamp

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, Step
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.transitions import claim
from shared.domain.status import StepStatus
from shared.queue.message import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER, list_key
from shared.store.server_clock import ServerClock
from tests.integration.worker.conftest import SETTINGS, Bench
from tests.waiting import wait_until
from worker.agent_errors import TransientError
from worker.reconciler import Reconciler

HANDOFF_S = SETTINGS["handoff_s"]
PATIENT_S = 60
LATE_S = 1 + 2 * HANDOFF_S + 0.001


def reconciler_of(bench: Bench, name: str = "first") -> Reconciler:
    """A reconciler whose clock has not looked yet, and that has left its start behind it.

    Nor does it take a machine that is busy for one that stood still.
    """
    reconciler = Reconciler(bench.fresh_clock(), name)
    reconciler._grace_periods._may_expire_at = reconciler._grace_periods._may_offer_at = 0
    reconciler._grace_periods._heartbeat_s = 60
    return reconciler


def patient_of(bench: Bench) -> Reconciler:
    """A reconciler that has only just begun, and is patient for longer than this machine stands still."""
    settings = replace(bench.services.settings, lease_s=2 * PATIENT_S, handoff_s=PATIENT_S, heartbeat_s=PATIENT_S)
    return Reconciler(replace(bench.fresh_clock(), settings=settings), "first")


def pass_by(bench: Bench, reconciler: Reconciler, seconds: float) -> None:
    """Let so many seconds pass for its patience; and no jump of the hand clock be what this machine took meanwhile."""
    reconciler._grace_periods._may_expire_at -= seconds
    reconciler._grace_periods._may_offer_at -= seconds
    reconciler._clock = bench.fresh_clock().clock


def running(bench: Bench, **changes: Any) -> Execution:
    run = bench.accept("echo", **changes)
    advance = claim(run, "s1", "token", bench.hand.now(), bench.services.timings)
    assert advance is not None
    return bench.services.store.save(run, advance).execution


def bells(bench: Bench) -> Any:
    return bench.services.redis.llen(list_key("default", PRIORITY_REOFFER))


def offers_of(bench: Bench, run: Execution) -> int:
    return bench.read(run).execution.steps["s1"].offers


def test_a_run_whose_bell_was_lost_is_offered_again_once(bench: Bench) -> None:
    run = bench.accept()
    bench.hand.forward(LATE_S)
    reconciler = reconciler_of(bench)
    assert [reconciler.reconcile_once(), reconciler.reconcile_once()] == [1, 0]
    assert (bells(bench), offers_of(bench, run)) == (1, 2)


def test_a_step_whose_worker_is_gone_is_offered_again_as_a_loss(bench: Bench) -> None:
    run = running(bench)
    bench.hand.forward(LATE_S)
    assert reconciler_of(bench).reconcile_once() == 1
    step = bench.read(run).execution.steps["s1"]
    assert (step.status, step.losses, step.token) == ("ready", 1, None)
    assert bells(bench) == 1


def test_what_mongod_stored_less_than_a_handoff_ago_is_left_alone(bench: Bench) -> None:
    """A frozen mongod applies an insert on waking whose caller was long told no, and who is about to take it back."""
    run = bench.accept()
    bench.hand.forward(1)  # past its hand-off, but mongod's own second is the last one
    reconciler = reconciler_of(bench)
    assert (reconciler.reconcile_once(), offers_of(bench, run)) == (0, 1)
    bench.hand.forward(LATE_S - 1)
    assert reconciler.reconcile_once() == 1


def told(bench: Bench, run: Execution) -> Execution:
    """Tell Redis of a run as the API does once its insert was answered; none of its steps is offered yet."""
    bench.services.publisher.publish_accepted([Decision(run)])
    return run


def soon(bench: Bench) -> datetime:
    return bench.hand.now() + timedelta(seconds=0.1)


def held(bench: Bench) -> Execution:
    """A run whose first step rests from the beginning, as one whose script begins with ``queued``."""
    return bench.accept(steps={"s1": Step("s1", "echo", StepStatus.READY, due_by=soon(bench))})


def scheduled(bench: Bench) -> Execution:
    return bench.accept(run_after=soon(bench))


@pytest.mark.parametrize("accept", [scheduled, held])
def test_a_run_just_accepted_is_offered_once_at_the_first_look_after_its_moment(
    bench: Bench, accept: Callable[[Bench], Execution]
) -> None:
    run = told(bench, accept(bench))
    bench.hand.forward(0.2)
    reconciler = reconciler_of(bench)
    assert [reconciler.reconcile_once(), reconciler.reconcile_once()] == [1, 0]
    assert offers_of(bench, run) == 1
    assert bench.services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) + bells(bench) == 1


@pytest.mark.parametrize("accept", [scheduled, held])
def test_one_that_nobody_was_told_was_accepted_is_left_alone_although_its_moment_has_come(
    bench: Bench, accept: Callable[[Bench], Execution]
) -> None:
    """A frozen mongod applies its insert on waking, its moment is long over, and the API is about to take it back."""
    run = accept(bench)
    bench.hand.forward(1)
    reconciler = reconciler_of(bench)
    assert (reconciler.reconcile_once(), offers_of(bench, run)) == (0, 0)
    bench.hand.forward(LATE_S - 1)
    assert (reconciler.reconcile_once(), offers_of(bench, run)) == (1, 1)


def test_a_step_of_a_run_just_stored_is_offered_again_once_its_rest_is_over(bench: Bench) -> None:
    def fails(*_: Any) -> Any:
        raise TransientError("it may pass")

    run = bench.accept("echo")
    bench.runner(echo=fails).run_message(bench.bell(run))
    assert bench.read(run).execution.steps["s1"].is_delayed
    bench.hand.forward(1.05)  # as long as its first rest may be; mongod's own second is the last one
    reconciler = reconciler_of(bench)
    assert [reconciler.reconcile_once(), reconciler.reconcile_once()] == [1, 0]
    assert (bells(bench), offers_of(bench, run)) == (1, 2)


@pytest.mark.parametrize("which", ["deadline", "start_deadline"])
def test_a_run_just_accepted_ends_at_the_first_look_after_its_deadline(bench: Bench, which: str) -> None:
    run = told(bench, bench.accept(**{which: soon(bench)}))
    doubted = bench.accept(**{which: soon(bench)})
    bench.hand.forward(0.2)
    reconciler = reconciler_of(bench)
    assert [reconciler.reconcile_once(), reconciler.reconcile_once()] == [1, 0]
    error = bench.read(run).execution.error
    assert error is not None
    assert error.error_code == f"{which}_exceeded"
    assert not bench.read(doubted).execution.is_done
    bench.hand.forward(LATE_S)
    assert reconciler_of(bench).reconcile_once() == 1
    assert bench.read(doubted).execution.is_done


def test_a_run_just_stored_that_runs_ends_at_the_first_look_after_its_deadline(bench: Bench) -> None:
    run = running(bench, deadline=bench.hand.now() + timedelta(seconds=60))
    bench.hand.forward(60.1)
    just_now = Timestamp(int(bench.hand.now().timestamp()), 1)
    bench.services.database.collection("executions").update_one({"_id": run.id}, {"$set": {"stored_at": just_now}})
    # A claim waits for no majority, and until it is one's the run looks like one that nobody has claimed.
    wait_until(reconciler_of(bench).reconcile_once, what="it is ended")
    assert bench.read(run).execution.is_done


@pytest.mark.parametrize("state", ["ready", "running"])
def test_after_its_start_and_after_a_failed_look_it_is_patient(bench: Bench, state: str) -> None:
    run = running(bench) if state == "running" else bench.accept()
    bench.hand.forward(1 + 2 * PATIENT_S)
    reconciler = patient_of(bench)
    assert reconciler.reconcile_once() == 0
    pass_by(bench, reconciler, PATIENT_S - 10)
    bench.store.fail("find_overdue", before=1)
    assert reconciler.reconcile_once() == 0, "a failed look: it begins to be patient anew"
    pass_by(bench, reconciler, PATIENT_S - 10)
    assert reconciler.reconcile_once() == 0
    pass_by(bench, reconciler, 10)
    assert reconciler.reconcile_once() == 1, "its patience is over"
    assert offers_of(bench, run) == 2


def test_after_the_clock_has_jumped_nothing_running_is_rescued_for_a_lease(bench: Bench) -> None:
    running(bench)
    reconciler = patient_of(bench)
    pass_by(bench, reconciler, PATIENT_S)
    assert reconciler.reconcile_once() == 0
    bench.hand.forward(60)
    assert reconciler.reconcile_once() == 0
    bench.store.fail("acquire_leadership", before=1)
    assert reconciler.reconcile_once() == 0, "and a failed look does not shorten it"
    pass_by(bench, reconciler, reconciler._services.settings.lease_s - 10)
    assert reconciler.reconcile_once() == 0
    pass_by(bench, reconciler, 20)
    assert reconciler.reconcile_once() == 1, "its patience is over"


def test_one_that_stood_still_is_patient_for_the_whole_machine_may_have(bench: Bench) -> None:
    running(bench)
    reconciler = patient_of(bench)
    pass_by(bench, reconciler, PATIENT_S)
    assert reconciler.reconcile_once() == 0
    bench.hand.forward(LATE_S)
    pass_by(bench, reconciler, 0)
    reconciler._grace_periods._pass_ended_at -= PATIENT_S + 1
    assert reconciler.reconcile_once() == 0, "it is patient anew"
    pass_by(bench, reconciler, PATIENT_S)
    assert reconciler.reconcile_once() == 1


@pytest.mark.parametrize(("handoff_s", "heartbeat_s", "period_s"), [(5, 10, 1), (5, 1, 0.5), (0.2, 0.2, 0.04)])
def test_its_own_looks_are_never_so_far_apart_that_it_takes_itself_for_one_that_stood_still(
    bench: Bench, handoff_s: float, heartbeat_s: float, period_s: float
) -> None:
    settings = replace(bench.services.settings, handoff_s=handoff_s, heartbeat_s=heartbeat_s)
    assert Reconciler(replace(bench.services, settings=settings), "a").period_s == pytest.approx(period_s)


def test_a_due_moment_that_a_clock_set_before_it_jumped_back_counts_as_due(bench: Bench) -> None:
    run = bench.accept()
    bench.hand.forward(LATE_S)
    ahead = bench.hand.now() + timedelta(hours=1)
    bench.services.database.collection("executions").update_one(
        {"_id": run.id}, {"$set": {"due_by": ahead, "steps.s1.due_by": ahead}}
    )
    assert reconciler_of(bench).reconcile_once() == 1
    assert offers_of(bench, run) == 2


def test_a_due_moment_that_stands_wrong_at_the_top_is_corrected(bench: Bench) -> None:
    run = bench.accept()
    executions = bench.services.database.collection("executions")
    bench.hand.forward(LATE_S)
    again = bench.hand.now() + timedelta(seconds=HANDOFF_S)
    executions.update_one({"_id": run.id}, {"$set": {"steps.s1.due_by": again}})
    reconciler = reconciler_of(bench)
    assert reconciler.reconcile_once() == 0
    found = executions.find_one({"_id": run.id})
    assert found is not None
    assert found["due_by"] == again


def test_one_that_cannot_be_read_or_rescued_keeps_no_other_from_it(bench: Bench) -> None:
    broken, stubborn, run = (bench.accept() for _ in range(3))
    executions = bench.services.database.collection("executions")
    executions.update_one({"_id": broken.id}, {"$unset": {"steps": ""}})
    bench.hand.forward(LATE_S)
    real = bench.store.__getattr__("save")

    def save(before: Execution, *args: Any, **options: Any) -> Any:
        if before.id == stubborn.id:
            raise RuntimeError("a test has broken this one")
        return real(before, *args, **options)

    bench.store.save = save  # type: ignore[attr-defined]
    assert reconciler_of(bench).reconcile_once() == 1
    assert offers_of(bench, run) == 2


def point(pool: Any, path: str) -> None:
    """Let a client's next connections go elsewhere."""
    pool.reset()
    pool.connection_kwargs["path"] = path


def test_while_redis_is_away_nothing_is_offered_to_nobody(bench: Bench) -> None:
    run, held = bench.accept(), running(bench)
    bench.hand.forward(LATE_S)
    reconciler = reconciler_of(bench)
    pool = bench.services.redis.connection_pool
    path = pool.connection_kwargs["path"]
    point(pool, f"{path}.gone")
    assert reconciler.reconcile_once() == 1, "a lost worker is one all the same"
    assert (offers_of(bench, run), bench.read(held).execution.steps["s1"].losses) == (1, 1)
    point(pool, path)
    assert reconciler.reconcile_once() == 1
    assert offers_of(bench, run) == 2


def test_of_two_one_acts_until_its_lead_is_over(bench: Bench) -> None:
    first, second = reconciler_of(bench, "first"), reconciler_of(bench, "second")
    run = bench.accept()
    bench.hand.forward(LATE_S)
    now = bench.hand.now()
    assert bench.store.acquire_leadership("first", now, now + timedelta(seconds=HANDOFF_S))
    assert (second.reconcile_once(), first.reconcile_once()) == (0, 1)
    bench.services.redis.flushall()  # or its message would wait there, and be no lost one
    bench.hand.forward(PATIENT_S)  # a hand-off after the offer, which is of when the look came to it
    assert (second.reconcile_once(), first.reconcile_once()) == (1, 0)
    assert offers_of(bench, run) == 3


def test_one_that_comes_late_to_a_run_does_not_offer_what_another_has_offered_since(bench: Bench) -> None:
    run = bench.accept()
    bench.hand.forward(LATE_S)
    late, quick = reconciler_of(bench), reconciler_of(bench, "second")
    found = bench.read(run).execution
    assert quick.reconcile_once() == 1
    bench.hand.forward(2 * HANDOFF_S)
    late._clock.sync()
    assert late._rescue(found, found.steps["s1"]) == 0
    assert (bells(bench), offers_of(bench, run)) == (1, 2), "that message waits in its list"


def test_a_lead_that_a_clock_ahead_has_set_does_not_last(bench: Bench) -> None:
    store, now = bench.services.store, bench.hand.now()
    period = timedelta(seconds=5)
    assert store.acquire_leadership("first", now, now + period)  # type: ignore[attr-defined]
    assert not store.acquire_leadership("second", now, now + period)  # type: ignore[attr-defined]
    before = now - timedelta(hours=1)
    assert store.acquire_leadership("second", before, before + period)  # type: ignore[attr-defined]


def test_a_long_queue_is_not_a_lost_message(bench: Bench) -> None:
    reconciler = reconciler_of(bench)
    runs = [bench.accept() for _ in range(5)]
    for run in runs:
        bench.services.publisher.publish_accepted([Decision(run, dispatch=("s1",))])
    bench.hand.forward(LATE_S)
    overdue, looked_at = bench.store.__getattr__("find_overdue"), []

    def noting(now: datetime, *more: Any) -> Any:
        looked_at.append(now)  # the hand's moment, and the milliseconds since it was read
        return overdue(now, *more)

    bench.store.find_overdue = noting  # type: ignore[attr-defined]
    assert reconciler.reconcile_once() == 0
    assert bench.services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 5
    assert {offers_of(bench, run) for run in runs} == {1}
    due_by = bench.read(runs[0]).execution.due_by
    assert due_by == looked_at[0] + bench.services.timings.queued_grace
    bench.services.redis.rpop(list_key("default", PRIORITY_FIRST_OFFER), 5)
    bench.hand.forward(HANDOFF_S * 13)
    assert reconciler.reconcile_once() == 5
    assert {offers_of(bench, run) for run in runs} == {2}
    assert bench.services.redis.llen(list_key("default", PRIORITY_REOFFER)) == 5


def test_a_message_behind_one_that_cannot_be_read_counts_as_waiting(bench: Bench) -> None:
    reconciler = reconciler_of(bench)
    run = bench.accept()
    bench.services.redis.rpush(list_key("default", PRIORITY_FIRST_OFFER), b"not json")
    bench.hand.forward(LATE_S)
    assert reconciler.reconcile_once() == 0
    assert offers_of(bench, run) == 1


def test_a_message_whose_successors_lead_the_queue_is_lost(bench: Bench) -> None:
    reconciler = reconciler_of(bench)
    lost = bench.accept()
    bench.hand.forward(HANDOFF_S * 3)
    waiting = bench.accept()
    bench.services.publisher.publish_accepted([Decision(waiting, dispatch=("s1",))])
    bench.hand.forward(LATE_S)
    assert reconciler.reconcile_once() == 1
    assert (offers_of(bench, lost), offers_of(bench, waiting)) == (2, 1)


def test_the_one_that_leads_sweeps_away_what_is_past_its_retention(bench: Bench) -> None:
    run, young = bench.accept(), bench.accept()
    bench.runner().run_message(bench.bell(run))
    bench.hand.forward(2 * 24 * 3600)
    keeping = replace(bench.services, settings=replace(bench.services.settings, retention_days=1))
    leads = Reconciler(replace(keeping, clock=ServerClock(bench.hand.now, sync_every_s=1e9)), "leads")
    stands_by = Reconciler(replace(keeping, clock=ServerClock(bench.hand.now, sync_every_s=1e9)), "stands by")
    now = bench.hand.now()
    assert bench.store.acquire_leadership("leads", now, now + timedelta(seconds=HANDOFF_S))
    stands_by.reconcile_once()
    assert bench.services.store.load(PUBLIC_INTEGRATOR, run.id) is not None
    leads.reconcile_once()
    assert bench.services.store.load(PUBLIC_INTEGRATOR, run.id) is None
    assert bench.services.store.load(PUBLIC_INTEGRATOR, young.id) is not None
