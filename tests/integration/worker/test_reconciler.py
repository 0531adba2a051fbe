"""The reconciler offers overdue steps again, once, and leaves alone those whose message only waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from bson import Timestamp

from shared.domain.definitions.basket import SEQUENTIAL, Basket, BasketStep
from shared.domain.definitions.retry_policy import DEFAULT_RETRY_POLICY
from shared.domain.execution import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER, PUBLIC_INTEGRATOR, Execution, Step
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.transitions import claim
from shared.domain.status import StepStatus
from shared.queue.message import list_key
from shared.store.server_clock import ServerClock
from tests.integration.worker.conftest import SETTINGS, WorkerHarness
from tests.waiting import wait_until
from worker.agent_errors import TransientError
from worker.reconciler import Reconciler

HANDOFF_S = SETTINGS["handoff_s"]
GRACE_S = 60
LATE_S = 1 + 2 * HANDOFF_S + 0.001


def reconciler_of(bench: WorkerHarness, name: str = "first") -> Reconciler:
    """Return a reconciler with a fresh clock, after the grace period of its start.

    A busy machine does not count as a standstill.
    """
    reconciler = Reconciler(bench.fresh_clock(), name)
    reconciler._grace_periods._may_expire_at = reconciler._grace_periods._may_offer_at = 0
    reconciler._grace_periods._heartbeat_s = 60
    return reconciler


def reconciler_in_grace(bench: WorkerHarness) -> Reconciler:
    """Return a reconciler that has just started; its grace periods are longer than any standstill of this machine."""
    settings = replace(bench.services.settings, lease_s=2 * GRACE_S, handoff_s=GRACE_S, heartbeat_s=GRACE_S)
    return Reconciler(replace(bench.fresh_clock(), settings=settings), "first")


def skip_grace(bench: WorkerHarness, reconciler: Reconciler, seconds: float) -> None:
    """Let seconds pass for the grace periods only, with a fresh clock, so that the hand clock shows no jump."""
    reconciler._grace_periods._may_expire_at -= seconds
    reconciler._grace_periods._may_offer_at -= seconds
    reconciler._clock = bench.fresh_clock().clock


def running_run(bench: WorkerHarness, **changes: Any) -> Execution:
    run = bench.accept("echo", **changes)
    decision = claim(run, "s1", "token", bench.clock.now(), bench.services.timings)
    assert decision is not None
    return bench.services.store.save(run, decision).execution


def queued_messages(bench: WorkerHarness) -> Any:
    return bench.services.redis.llen(list_key("default", PRIORITY_REOFFER))


def offers_of(bench: WorkerHarness, run: Execution) -> int:
    return bench.read(run).execution.steps["s1"].offers


def test_a_run_whose_message_was_lost_is_offered_again_once(bench: WorkerHarness) -> None:
    run = bench.accept()
    bench.clock.advance(LATE_S)
    reconciler = reconciler_of(bench)
    assert [reconciler.reconcile_once(), reconciler.reconcile_once()] == [1, 0]
    assert (queued_messages(bench), offers_of(bench, run)) == (1, 2)


def test_a_step_whose_worker_is_gone_is_offered_again_as_a_loss(bench: WorkerHarness) -> None:
    run = running_run(bench)
    bench.clock.advance(LATE_S)
    assert reconciler_of(bench).reconcile_once() == 1
    step = bench.read(run).execution.steps["s1"]
    assert (step.status, step.losses, step.token) == ("ready", 1, None)
    assert queued_messages(bench) == 1


def test_a_run_that_mongod_stored_less_than_a_handoff_ago_is_left_alone(bench: WorkerHarness) -> None:
    """A frozen mongod applies an insert when it wakes, after its caller got an error; the API will withdraw the run."""
    run = bench.accept()
    bench.clock.advance(1)  # past its hand-off time, but `stored_at` has a resolution of a second
    reconciler = reconciler_of(bench)
    assert (reconciler.reconcile_once(), offers_of(bench, run)) == (0, 1)
    bench.clock.advance(LATE_S - 1)
    assert reconciler.reconcile_once() == 1


def publish_accepted(bench: WorkerHarness, run: Execution) -> Execution:
    """Publish a run as the API does after the reply to its insert; none of its steps is offered yet."""
    bench.services.publisher.publish_accepted([Decision(run)])
    return run


def in_a_moment(bench: WorkerHarness) -> datetime:
    return bench.clock.now() + timedelta(seconds=0.1)


def delayed_accept(bench: WorkerHarness) -> Execution:
    """Accept a run whose first step is delayed from the beginning, like one whose script begins with ``queued``."""
    return bench.accept(steps={"s1": Step("s1", "echo", StepStatus.READY, due_by=in_a_moment(bench))})


def scheduled_accept(bench: WorkerHarness) -> Execution:
    return bench.accept(run_after=in_a_moment(bench))


@pytest.mark.parametrize("accept", [scheduled_accept, delayed_accept])
def test_a_run_just_accepted_is_offered_once_at_the_first_pass_after_its_due_time(
    bench: WorkerHarness, accept: Callable[[WorkerHarness], Execution]
) -> None:
    run = publish_accepted(bench, accept(bench))
    bench.clock.advance(0.2)
    reconciler = reconciler_of(bench)
    assert [reconciler.reconcile_once(), reconciler.reconcile_once()] == [1, 0]
    assert offers_of(bench, run) == 1
    assert bench.services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) + queued_messages(bench) == 1


@pytest.mark.parametrize("accept", [scheduled_accept, delayed_accept])
def test_a_run_without_an_accept_marker_is_left_alone_although_it_is_due(
    bench: WorkerHarness, accept: Callable[[WorkerHarness], Execution]
) -> None:
    """A frozen mongod applies an insert when it wakes, long after its due time; the API will withdraw the run."""
    run = accept(bench)
    bench.clock.advance(1)
    reconciler = reconciler_of(bench)
    assert (reconciler.reconcile_once(), offers_of(bench, run)) == (0, 0)
    bench.clock.advance(LATE_S - 1)
    assert (reconciler.reconcile_once(), offers_of(bench, run)) == (1, 1)


def test_a_step_of_a_run_just_stored_is_offered_again_after_its_retry_delay(bench: WorkerHarness) -> None:
    def fails(*_: Any) -> Any:
        raise TransientError("it may pass")

    run = bench.accept("echo")
    bench.runner(echo=fails).run_message(bench.message_of(run))
    assert bench.read(run).execution.steps["s1"].is_delayed
    bench.clock.advance(1.05)  # the longest first retry delay; `stored_at` has a resolution of a second
    reconciler = reconciler_of(bench)
    assert [reconciler.reconcile_once(), reconciler.reconcile_once()] == [1, 0]
    assert (queued_messages(bench), offers_of(bench, run)) == (1, 2)


@pytest.mark.parametrize("which", ["deadline", "start_deadline"])
def test_a_run_just_accepted_expires_at_the_first_pass_after_its_deadline(bench: WorkerHarness, which: str) -> None:
    run = publish_accepted(bench, bench.accept(**{which: in_a_moment(bench)}))
    possibly_withdrawn = bench.accept(**{which: in_a_moment(bench)})
    bench.clock.advance(0.2)
    reconciler = reconciler_of(bench)
    assert [reconciler.reconcile_once(), reconciler.reconcile_once()] == [1, 0]
    error = bench.read(run).execution.error
    assert error is not None
    assert error.error_code == f"{which}_exceeded"
    assert not bench.read(possibly_withdrawn).execution.is_done
    bench.clock.advance(LATE_S)
    assert reconciler_of(bench).reconcile_once() == 1
    assert bench.read(possibly_withdrawn).execution.is_done


def test_a_running_run_just_stored_expires_at_the_first_pass_after_its_deadline(bench: WorkerHarness) -> None:
    run = running_run(bench, deadline=bench.clock.now() + timedelta(seconds=60))
    bench.clock.advance(60.1)
    just_now = Timestamp(int(bench.clock.now().timestamp()), 1)
    bench.services.database.collection("executions").update_one({"_id": run.id}, {"$set": {"stored_at": just_now}})
    # A claim does not wait for a majority; until a majority has it, the run looks unclaimed.
    wait_until(reconciler_of(bench).reconcile_once, what="the run expires")
    assert bench.read(run).execution.is_done


@pytest.mark.parametrize("state", ["ready", "running"])
def test_after_its_start_and_after_a_failed_pass_it_has_a_grace_period(bench: WorkerHarness, state: str) -> None:
    run = running_run(bench) if state == "running" else bench.accept()
    bench.clock.advance(1 + 2 * GRACE_S)
    reconciler = reconciler_in_grace(bench)
    assert reconciler.reconcile_once() == 0
    skip_grace(bench, reconciler, GRACE_S - 10)
    bench.store.fail("find_overdue", before=1)
    assert reconciler.reconcile_once() == 0
    skip_grace(bench, reconciler, GRACE_S)
    assert reconciler.reconcile_once() == 0, "after failed passes a new grace period begins with the first reply"
    skip_grace(bench, reconciler, GRACE_S - 10)
    assert reconciler.reconcile_once() == 0
    skip_grace(bench, reconciler, 10)
    assert reconciler.reconcile_once() == 1, "the grace period is over"
    assert offers_of(bench, run) == 2


def test_a_standby_that_takes_over_has_no_grace_period_of_an_outage_long_past(bench: WorkerHarness) -> None:
    run = running_run(bench)
    leader, standby = reconciler_of(bench), reconciler_of(bench, "second")
    leader.reconcile_once()
    bench.store.fail("acquire_leadership", before=1)
    assert [standby.reconcile_once(), standby.reconcile_once()] == [0, 0]
    standby._grace_periods._may_expire_at = 0
    bench.clock.advance(LATE_S)  # the leader's term is over too
    standby._clock = bench.fresh_clock().clock
    assert standby.reconcile_once() == 1
    assert offers_of(bench, run) == 2


def test_after_the_clock_has_jumped_nothing_running_is_rescued_for_a_lease(bench: WorkerHarness) -> None:
    running_run(bench)
    reconciler = reconciler_in_grace(bench)
    skip_grace(bench, reconciler, GRACE_S)
    assert reconciler.reconcile_once() == 0
    bench.clock.advance(60)
    assert reconciler.reconcile_once() == 0
    bench.store.fail("acquire_leadership", before=1)
    assert reconciler.reconcile_once() == 0
    assert reconciler.reconcile_once() == 0, "a failed pass does not shorten the grace period"
    skip_grace(bench, reconciler, reconciler._services.settings.lease_s - 10)
    assert reconciler.reconcile_once() == 0
    skip_grace(bench, reconciler, 20)
    assert reconciler.reconcile_once() == 1, "the grace period is over"


def test_after_a_standstill_of_its_process_it_has_a_grace_period(bench: WorkerHarness) -> None:
    running_run(bench)
    reconciler = reconciler_in_grace(bench)
    skip_grace(bench, reconciler, GRACE_S)
    assert reconciler.reconcile_once() == 0
    bench.clock.advance(LATE_S)
    skip_grace(bench, reconciler, 0)
    reconciler._grace_periods._pass_ended_at -= GRACE_S + 1
    assert reconciler.reconcile_once() == 0, "a new grace period begins"
    skip_grace(bench, reconciler, GRACE_S)
    assert reconciler.reconcile_once() == 1


def test_after_a_reply_that_took_very_long_it_has_a_grace_period(bench: WorkerHarness) -> None:
    """A mongod that was frozen answers when it goes on: no call has failed, and no worker could renew its lease."""
    running_run(bench)
    bench.clock.advance(LATE_S)
    reconciler = reconciler_in_grace(bench)
    skip_grace(bench, reconciler, GRACE_S)
    real = bench.store.__getattr__("find_overdue")

    def find_overdue(*arguments: Any) -> Any:
        reconciler._grace_periods._pass_began_at -= GRACE_S + 1
        return real(*arguments)

    bench.store.find_overdue = find_overdue  # type: ignore[attr-defined]
    assert reconciler.reconcile_once() == 0, "a grace period begins"
    del bench.store.find_overdue  # type: ignore[attr-defined]
    skip_grace(bench, reconciler, GRACE_S)
    assert reconciler.reconcile_once() == 1


@pytest.mark.parametrize(("handoff_s", "heartbeat_s", "period_s"), [(5, 10, 1), (5, 1, 0.5), (0.2, 0.2, 0.04)])
def test_the_period_of_passes_is_too_short_to_count_as_a_standstill(
    bench: WorkerHarness, handoff_s: float, heartbeat_s: float, period_s: float
) -> None:
    settings = replace(bench.services.settings, handoff_s=handoff_s, heartbeat_s=heartbeat_s)
    assert Reconciler(replace(bench.services, settings=settings), "a").period_s == pytest.approx(period_s)


def test_a_due_time_set_before_the_clock_jumped_back_counts_as_due(bench: WorkerHarness) -> None:
    run = bench.accept()
    bench.clock.advance(LATE_S)
    ahead = bench.clock.now() + timedelta(hours=1)
    bench.services.database.collection("executions").update_one(
        {"_id": run.id}, {"$set": {"due_by": ahead, "steps.s1.due_by": ahead}}
    )
    assert reconciler_of(bench).reconcile_once() == 1
    assert offers_of(bench, run) == 2


def test_what_is_due_far_ahead_is_not_read_in_each_pass_and_never_written(bench: WorkerHarness) -> None:
    """Thousands of schedules or long retries must not occupy the reconciler."""
    bench.accept(run_after=bench.clock.now() + timedelta(days=1))
    step = BasketStep("s1", "echo", retry=replace(DEFAULT_RETRY_POLICY, wait_max_s=900))
    retried, now = bench.accept(basket=Basket("bench", SEQUENTIAL, (step,))), bench.clock.now()
    ahead = now + timedelta(minutes=10)
    changes = {"started_at": now, "due_by": ahead, "steps.s1.due_by": ahead, "steps.s1.failures": 1}
    bench.services.database.collection("executions").update_one(
        {"_id": retried.id}, {"$set": changes, "$unset": {"steps.s1.offered_at": ""}}
    )
    found: list[list[str]] = []
    written: list[list[Execution]] = []
    real = bench.store.__getattr__("find_overdue")

    def find_overdue(*arguments: Any) -> Any:
        overdue = real(*arguments)
        found.append([execution.id for execution, _ in overdue])
        return overdue

    bench.store.find_overdue = find_overdue  # type: ignore[attr-defined]
    bench.store.postpone = written.append  # type: ignore[attr-defined]
    reconciler = reconciler_of(bench)
    for _ in range(3):
        assert reconciler.reconcile_once() == 0
    assert found == [[retried.id], [], []]
    assert written == [[], [], []]


def test_a_wrong_due_by_at_the_top_is_corrected(bench: WorkerHarness) -> None:
    run = bench.accept()
    executions = bench.services.database.collection("executions")
    bench.clock.advance(LATE_S)
    again = bench.clock.now() + timedelta(seconds=HANDOFF_S)
    executions.update_one({"_id": run.id}, {"$set": {"steps.s1.due_by": again}})
    reconciler = reconciler_of(bench)
    assert reconciler.reconcile_once() == 0
    document = executions.find_one({"_id": run.id})
    assert document is not None
    assert document["due_by"] == again


def test_a_run_that_cannot_be_read_or_rescued_does_not_block_others(bench: WorkerHarness) -> None:
    broken, stubborn, run = (bench.accept() for _ in range(3))
    executions = bench.services.database.collection("executions")
    executions.update_one({"_id": broken.id}, {"$unset": {"steps": ""}})
    bench.clock.advance(LATE_S)
    real = bench.store.__getattr__("save")

    def save(before: Execution, *args: Any, **options: Any) -> Any:
        if before.id == stubborn.id:
            raise RuntimeError("a test has broken this one")
        return real(before, *args, **options)

    bench.store.save = save  # type: ignore[attr-defined]
    assert reconciler_of(bench).reconcile_once() == 1
    assert offers_of(bench, run) == 2


def redirect_pool(pool: Any, path: str) -> None:
    """Let a client's next connections go to another path."""
    pool.reset()
    pool.connection_kwargs["path"] = path


def test_while_redis_is_away_no_step_is_offered(bench: WorkerHarness) -> None:
    run, held_run = bench.accept(), running_run(bench)
    bench.clock.advance(LATE_S)
    reconciler = reconciler_of(bench)
    pool = bench.services.redis.connection_pool
    path = pool.connection_kwargs["path"]
    redirect_pool(pool, f"{path}.gone")
    assert reconciler.reconcile_once() == 1, "a lost worker is counted without Redis too"
    assert (offers_of(bench, run), bench.read(held_run).execution.steps["s1"].losses) == (1, 1)
    redirect_pool(pool, path)
    assert reconciler.reconcile_once() == 1
    assert offers_of(bench, run) == 2


def test_one_of_two_reconcilers_acts_until_its_leadership_ends(bench: WorkerHarness) -> None:
    first, second = reconciler_of(bench, "first"), reconciler_of(bench, "second")
    run = bench.accept()
    bench.clock.advance(LATE_S)
    now = bench.clock.now()
    assert bench.store.acquire_leadership("first", now, now + timedelta(seconds=HANDOFF_S))
    assert (second.reconcile_once(), first.reconcile_once()) == (0, 1)
    bench.services.redis.flushall()  # else its message would still wait there, and not be lost
    bench.clock.advance(GRACE_S)  # a hand-off time after the offer, which has the time of the pass
    assert (second.reconcile_once(), first.reconcile_once()) == (1, 0)
    assert offers_of(bench, run) == 3


def test_a_leader_renews_its_term_at_half_of_it(bench: WorkerHarness) -> None:
    leader = reconciler_of(bench)
    renewals = []
    for _ in range(10):
        leader.reconcile_once()
        renewals.append(bench.store.calls["acquire_leadership"])
        bench.clock.advance(HANDOFF_S / 5)
    assert renewals == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert leader.is_leader


def test_a_late_rescue_does_not_offer_a_step_that_another_has_offered_since(bench: WorkerHarness) -> None:
    run = bench.accept()
    bench.clock.advance(LATE_S)
    late, quick = reconciler_of(bench), reconciler_of(bench, "second")
    execution = bench.read(run).execution
    assert quick.reconcile_once() == 1
    bench.clock.advance(2 * HANDOFF_S)
    late._clock.sync()
    assert late._rescue(execution, execution.steps["s1"]) == 0
    assert (queued_messages(bench), offers_of(bench, run)) == (1, 2), "that message waits in its list"


def test_a_leadership_that_was_set_by_a_clock_ahead_does_not_last(bench: WorkerHarness) -> None:
    store, now = bench.services.store, bench.clock.now()
    period = timedelta(seconds=5)
    assert store.acquire_leadership("first", now, now + period)  # type: ignore[attr-defined]
    assert not store.acquire_leadership("second", now, now + period)  # type: ignore[attr-defined]
    before = now - timedelta(hours=1)
    assert store.acquire_leadership("second", before, before + period)  # type: ignore[attr-defined]


def test_a_long_queue_is_not_a_lost_message(bench: WorkerHarness) -> None:
    reconciler = reconciler_of(bench)
    runs = [bench.accept() for _ in range(5)]
    for run in runs:
        bench.services.publisher.publish_accepted([Decision(run, dispatch=("s1",))])
    bench.clock.advance(LATE_S)
    find_overdue, times = bench.store.__getattr__("find_overdue"), []

    def recording(now: datetime, *more: Any) -> Any:
        times.append(now)  # the hand clock's time, and the milliseconds since it was read
        return find_overdue(now, *more)

    bench.store.find_overdue = recording  # type: ignore[attr-defined]
    assert reconciler.reconcile_once() == 0
    assert bench.services.redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 5
    assert {offers_of(bench, run) for run in runs} == {1}
    due_by = bench.read(runs[0]).execution.due_by
    assert due_by == times[0] + bench.services.timings.queued_grace
    bench.services.redis.rpop(list_key("default", PRIORITY_FIRST_OFFER), 5)
    bench.clock.advance(HANDOFF_S * 13)
    assert reconciler.reconcile_once() == 5
    assert {offers_of(bench, run) for run in runs} == {2}
    assert bench.services.redis.llen(list_key("default", PRIORITY_REOFFER)) == 5


def test_a_message_behind_one_that_cannot_be_read_counts_as_waiting(bench: WorkerHarness) -> None:
    reconciler = reconciler_of(bench)
    run = bench.accept()
    bench.services.redis.rpush(list_key("default", PRIORITY_FIRST_OFFER), b"not json")
    bench.clock.advance(LATE_S)
    assert reconciler.reconcile_once() == 0
    assert offers_of(bench, run) == 1


def test_a_message_is_lost_if_later_messages_lead_the_queue(bench: WorkerHarness) -> None:
    reconciler = reconciler_of(bench)
    lost = bench.accept()
    bench.clock.advance(HANDOFF_S * 3)
    waiting = bench.accept()
    bench.services.publisher.publish_accepted([Decision(waiting, dispatch=("s1",))])
    bench.clock.advance(LATE_S)
    assert reconciler.reconcile_once() == 1
    assert (offers_of(bench, lost), offers_of(bench, waiting)) == (2, 1)


def test_a_step_whose_turn_has_passed_is_checked_again_after_one_handoff_time(bench: WorkerHarness) -> None:
    reconciler = reconciler_of(bench)
    lost = bench.accept()
    # A second is the least by which the bench's clock moves on, because mongod stores in whole seconds.
    timings = replace(bench.services.timings, handoff=timedelta(seconds=3))
    bench.services = reconciler._services = replace(bench.services, timings=timings)
    bench.clock.advance(1)
    later = bench.accept()
    bench.services.publisher.publish_accepted([Decision(later, dispatch=("s1",))])
    bench.clock.advance(4)
    assert reconciler.reconcile_once() == 0, "messages may be out of order by a little"
    waits = bench.read(lost).execution.due_by
    assert waits is not None
    assert waits < bench.clock.now() + 2 * bench.services.timings.handoff
    due_by = bench.read(later).execution.due_by
    assert due_by is not None
    assert due_by > bench.clock.now() + 10 * bench.services.timings.handoff


def test_only_the_leader_deletes_runs_past_their_retention(bench: WorkerHarness) -> None:
    run, young = bench.accept(), bench.accept()
    bench.runner().run_message(bench.message_of(run))
    bench.clock.advance(2 * 24 * 3600)
    services = replace(bench.services, settings=replace(bench.services.settings, retention_days=1))
    leader = Reconciler(replace(services, clock=ServerClock(bench.clock.now, sync_every_s=1e9)), "leads")
    standby = Reconciler(replace(services, clock=ServerClock(bench.clock.now, sync_every_s=1e9)), "stands by")
    now = bench.clock.now()
    assert bench.store.acquire_leadership("leads", now, now + timedelta(seconds=HANDOFF_S))
    standby.reconcile_once()
    assert bench.services.store.load(PUBLIC_INTEGRATOR, run.id) is not None
    leader.reconcile_once()
    assert bench.services.store.load(PUBLIC_INTEGRATOR, run.id) is None
    assert bench.services.store.load(PUBLIC_INTEGRATOR, young.id) is not None
