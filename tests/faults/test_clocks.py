"""A process whose own clock is an hour wrong uses the server's clock, which the test sets: scenario 35."""

from __future__ import annotations

from datetime import timedelta

import pytest
from bson import Timestamp

from shared.domain.execution import Execution
from shared.domain.lifecycle.transitions import claim
from tests.integration.worker.conftest import SETTINGS, WorkerHarness, bench
from tests.waiting import wait_until
from worker.reconciler import Reconciler

__all__ = ["bench"]  # a fixture

HOUR = 3_600
LEASE_S = SETTINGS["lease_s"]


def reconciler_of(bench: WorkerHarness) -> Reconciler:
    """Return a reconciler whose grace period after the start is over, and which does not detect busy pauses."""
    reconciler = Reconciler(bench.fresh_clock(), "first")
    reconciler._grace_periods._heartbeat_s = 60
    wait_until(
        lambda: reconciler.reconcile_once() == 0 and reconciler._grace_periods.may_expire_running,
        5,
        "its grace period is over",
    )
    return reconciler


def running(bench: WorkerHarness) -> Execution:
    """Return a run whose step was claimed just now by the store's clock, and which was stored long before."""
    at = bench.clock.current
    run = bench.accept("echo")
    bench.clock.current = at  # the bench has set it to the time of mongod
    long_ago = Timestamp(int(bench.clock.now().timestamp()) - 60, 1)
    bench.services.database.collection("executions").update_one({"_id": run.id}, {"$set": {"stored_at": long_ago}})
    decision = claim(run, "s1", "token", bench.services.clock.now(), bench.services.timings)
    assert decision is not None
    return bench.services.store.save(run, decision).execution


@pytest.mark.parametrize("off_s", [HOUR, -HOUR])
def test_35_a_lease_ends_by_the_servers_clock_even_if_the_own_clock_is_wrong(bench: WorkerHarness, off_s: int) -> None:
    bench.clock.advance(off_s)
    reconciler = reconciler_of(bench)
    run = running(bench)
    assert reconciler.reconcile_once() == 0, "no early end"
    assert bench.read(run).execution.steps["s1"].losses == 0
    bench.clock.advance(LEASE_S + 0.05)
    assert reconciler.reconcile_once() == 1, "no late end"
    assert bench.read(run).execution.steps["s1"].losses == 1


@pytest.mark.parametrize("off_s", [HOUR, -HOUR])
def test_35_a_worker_claims_and_completes_by_the_servers_clock(bench: WorkerHarness, off_s: int) -> None:
    bench.clock.advance(off_s)
    began = bench.clock.now()
    run = bench.accept("echo")
    bench.clock.current = began  # the bench has set it to the time of mongod
    bench.runner().run_message(bench.message_of(run))
    execution = bench.read(run).execution
    assert execution.started_at is not None
    assert execution.finished_at is not None
    assert timedelta(0) <= execution.started_at - began
    assert execution.finished_at - began < timedelta(seconds=5)
