"""A process whose own clock is an hour off decides by the store's: scenario 35, with the store's clock in hand."""

from __future__ import annotations

from datetime import timedelta

import pytest
from bson import Timestamp

from shared.domain.execution import Execution
from shared.domain.lifecycle.transitions import claim
from tests.integration.worker.conftest import SETTINGS, Bench, bench
from tests.waiting import wait_until
from worker.reconciler import Reconciler

__all__ = ["bench"]  # a fixture

HOUR = 3_600
LEASE_S = SETTINGS["lease_s"]


def reconciler_of(bench: Bench) -> Reconciler:
    """A reconciler that has left the patience of its start behind it, and takes a busy machine for no standstill."""
    reconciler = Reconciler(bench.fresh_clock(), "first")
    reconciler._grace_periods._heartbeat_s = 60
    wait_until(
        lambda: reconciler.reconcile_once() == 0 and reconciler._grace_periods.may_expire_running,
        5,
        "its patience is over",
    )
    return reconciler


def running(bench: Bench) -> Execution:
    """A run whose step was claimed this moment by the store's clock, and stored long before."""
    at = bench.hand.at
    run = bench.accept("echo")
    bench.hand.at = at  # the bench has moved it to mongod's
    long_ago = Timestamp(int(bench.hand.now().timestamp()) - 60, 1)
    bench.services.database.collection("executions").update_one({"_id": run.id}, {"$set": {"stored_at": long_ago}})
    advance = claim(run, "s1", "token", bench.services.clock.now(), bench.services.timings)
    assert advance is not None
    return bench.services.store.save(run, advance).execution


@pytest.mark.parametrize("off_s", [HOUR, -HOUR])
def test_35_a_lease_ends_by_the_stores_clock_however_far_off_the_processs_own_is(bench: Bench, off_s: int) -> None:
    bench.hand.forward(off_s)
    reconciler = reconciler_of(bench)
    run = running(bench)
    assert reconciler.reconcile_once() == 0, "no early end"
    assert bench.read(run).execution.steps["s1"].losses == 0
    bench.hand.forward(LEASE_S + 0.05)
    assert reconciler.reconcile_once() == 1, "no late end"
    assert bench.read(run).execution.steps["s1"].losses == 1


@pytest.mark.parametrize("off_s", [HOUR, -HOUR])
def test_35_a_worker_claims_and_completes_by_the_stores_clock(bench: Bench, off_s: int) -> None:
    bench.hand.forward(off_s)
    began = bench.hand.now()
    run = bench.accept("echo")
    bench.hand.at = began  # the bench has moved it to mongod's
    bench.runner().run_message(bench.bell(run))
    execution = bench.read(run).execution
    assert execution.started_at is not None
    assert execution.finished_at is not None
    assert execution.started_at == began
    assert execution.finished_at - began < timedelta(seconds=5)
