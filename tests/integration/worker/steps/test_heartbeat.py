"""Heartbeat: it renews the lease, writes log lines and progress, publishes the view, and notices a lost lease."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo.read_concern import ReadConcern

from shared.domain.execution import Execution, ExecutionRecord
from shared.domain.lifecycle.transitions import claim
from shared.live.render import parse_header
from tests.integration.worker.conftest import SETTINGS, WorkerHarness
from tests.waiting import wait_until
from worker.steps.claims import ClaimedStep
from worker.steps.heartbeat import PUBLISH_AFTER_S, Heartbeat, HeartbeatThread
from worker.steps.pending_writes import PendingWrites
from worker.steps.report_buffer import ReportBuffer


@dataclass
class ClaimedWithHeartbeat:
    """A claimed step and its heartbeat, not started yet."""

    bench: WorkerHarness
    claimed_step: ClaimedStep
    heartbeat: Heartbeat
    stopped: queue.Queue[str]
    heartbeat_thread: HeartbeatThread

    @property
    def run(self) -> Execution:
        """The run whose step it is."""
        return self.claimed_step.execution

    @property
    def reporter(self) -> ReportBuffer:
        """The step's reporter."""
        return self.claimed_step.reporter

    @property
    def due_by(self) -> datetime:
        """When the step's lease ends, as stored; the run's own ``due_by`` must be the same."""
        # Read from the primary: a majority may lie behind the claim, which does not wait for it. And in one read: the
        # heartbeat may renew the lease between two reads.
        executions = self.bench.services.database.collection("executions").with_options(
            read_concern=ReadConcern("local")
        )
        stored = executions.find_one({"_id": self.run.id})
        assert stored is not None
        due_by: datetime = stored["steps"]["s1"]["due_by"]
        assert stored["due_by"] == due_by
        return due_by

    @property
    def view(self) -> bytes | None:
        """The view in Redis."""
        return self.bench.services.views.get(self.run.integrator, self.run.id)


@pytest.fixture
def claimed(bench: WorkerHarness) -> ClaimedWithHeartbeat:
    run = bench.accept("echo", "echo")
    decision = claim(run, "s1", "token", bench.clock.now(), bench.services.timings)
    assert decision is not None
    execution = bench.services.store.save(run, decision).execution
    lease = execution.lease_of("s1")
    stopped: queue.Queue[str] = queue.Queue()
    pending_writes = PendingWrites(
        bench.services, ExecutionRecord(execution), lease, published_seq=1, give_up=lambda: False
    )
    claimed_step = ClaimedStep(execution, lease, pending_writes, ReportBuffer("echo", "s1", bench.clock.now), {})
    heartbeat = Heartbeat(bench.services, claimed_step, request_stop=stopped.put)
    heartbeat_thread = HeartbeatThread(on_tick=lambda _: None)
    heartbeat_thread.start()
    return ClaimedWithHeartbeat(bench, claimed_step, heartbeat, stopped, heartbeat_thread)


def test_a_lease_is_renewed_and_moves_neither_version_nor_rev(claimed: ClaimedWithHeartbeat) -> None:
    with claimed.heartbeat_thread.attach(claimed.heartbeat):
        moved = claimed.bench.clock.advance(60)
        # Not only later than before: a renewal may be under way while the hand clock moves.
        lease = timedelta(seconds=SETTINGS["lease_s"])
        wait_until(lambda: claimed.due_by - moved >= lease, 5, "the lease is renewed")
    current = claimed.bench.read(claimed.run).execution
    assert (current.version, current.rev) == (claimed.run.version, claimed.run.rev)


def test_a_heartbeat_that_failed_is_tried_again_at_once_and_not_a_period_later(claimed: ClaimedWithHeartbeat) -> None:
    claimed.bench.store.fail("renew", before=3, after=1)
    first = claimed.due_by
    with claimed.heartbeat_thread.attach(claimed.heartbeat):
        claimed.bench.clock.advance(60)
        wait_until(lambda: claimed.bench.store.calls["renew"] >= 5, 5, "it is tried again")
        wait_until(lambda: claimed.due_by > first, 5, "it is renewed")
        assert claimed.stopped.empty()


@pytest.mark.parametrize(("claimed_ago_s", "renewals"), [(0, 0), (10 * SETTINGS["heartbeat_s"], 1)])
def test_a_lease_whose_claim_waited_for_the_store_is_renewed_as_soon_as_the_step_is_not_quick(
    claimed: ClaimedWithHeartbeat, claimed_ago_s: float, renewals: int
) -> None:
    claimed.bench.clock.advance(claimed_ago_s)
    claimed.bench.services.clock.now()  # it reads the hand clock
    heartbeat = Heartbeat(claimed.bench.services, claimed.claimed_step, request_stop=claimed.stopped.put)
    heartbeat.tick(heartbeat._began_at + 2 * PUBLISH_AFTER_S)
    assert claimed.bench.store.calls["renew"] == renewals


def test_a_lease_that_is_lost_is_noticed(claimed: ClaimedWithHeartbeat) -> None:
    with claimed.heartbeat_thread.attach(claimed.heartbeat):
        claimed.bench.lose_worker(claimed.run)
        assert claimed.stopped.get(timeout=5) == "lost"


@pytest.mark.parametrize("fault", ["before", "after"])
def test_lines_that_the_store_did_not_accept_are_put_back_in_order(claimed: ClaimedWithHeartbeat, fault: str) -> None:
    def stored_lines() -> list[str]:
        return [event.message for event in claimed.bench.read(claimed.run).events if event.event == "agent.log"]

    claimed.bench.store.fail("report", **{fault: 2})
    with claimed.heartbeat_thread.attach(claimed.heartbeat):
        for number in range(3):
            claimed.reporter.line("info", f"line {number}", b"{}")
            time.sleep(SETTINGS["heartbeat_s"] / 2)
        wait_until(lambda: claimed.bench.store.calls["report"] >= 3, 5, "it is tried again")
        wait_until(lambda: "line 2" in stored_lines(), 5, "the last line is stored")
    assert claimed.reporter.take_report().is_empty, "nothing is left behind"
    assert list(dict.fromkeys(stored_lines())) == ["line 0", "line 1", "line 2"]
    if fault == "before":
        assert stored_lines() == ["line 0", "line 1", "line 2"], "nothing was written, so nothing is doubled"


def test_progress_after_a_failed_report_stays_newer(claimed: ClaimedWithHeartbeat) -> None:
    claimed.reporter.progress(10, "ten")
    failed_report = claimed.reporter.take_report()
    claimed.reporter.progress(20, None)
    claimed.reporter.restore_report(failed_report)
    report = claimed.reporter.take_report()
    assert (report.percent, report.message) == (20, "ten")


def test_a_flood_keeps_the_newest_lines_and_counts_the_others_also_when_put_back(claimed: ClaimedWithHeartbeat) -> None:
    for number in range(1_500):
        claimed.reporter.line("info", str(number), b"{}")
    first = claimed.reporter.take_report()
    assert (len(first.events), first.dropped, first.events[0].message) == (1_000, 500, "500")
    claimed.reporter.line("info", "1500", b"{}")
    claimed.reporter.restore_report(first)
    again = claimed.reporter.take_report()
    assert (len(again.events), again.dropped, again.events[-1].message) == (1_000, 501, "1500")


def test_the_view_of_a_slow_step_is_published_by_the_heartbeat(claimed: ClaimedWithHeartbeat) -> None:
    with claimed.heartbeat_thread.attach(claimed.heartbeat):
        wait_until(lambda: claimed.view is not None, 5, "the view is published")
    assert claimed.view is not None
    assert (parse_header(claimed.view).status, parse_header(claimed.view).rev) == ("running", claimed.run.rev)


def test_a_claim_is_published_once_a_majority_has_it_after_few_reads(
    claimed: ClaimedWithHeartbeat,
) -> None:
    bench, read_at, tick = claimed.bench, list[float](), [0.0]
    not_claimed = replace(claimed.run, steps={"s1": replace(claimed.run.steps["s1"], token=None, claims=0)})

    def read(*args: Any, **options: Any) -> ExecutionRecord:
        read_at.append(tick[0])
        return ExecutionRecord(claimed.run if tick[0] > 0.9 else not_claimed)

    bench.store.read = read  # type: ignore[attr-defined]
    slow = replace(bench.services, settings=replace(bench.services.settings, lease_s=120, heartbeat_s=60))
    heartbeat = Heartbeat(slow, claimed.claimed_step, request_stop=claimed.stopped.put)
    for number in range(80):  # two seconds, without waiting
        tick[0] = number * 0.025
        heartbeat.tick(heartbeat._began_at + tick[0])
    assert claimed.view is not None
    assert parse_header(claimed.view).status == "running"
    assert 0.9 < read_at[-1] < 1.4
    assert len(read_at) < 10


def test_a_quick_step_costs_no_read(claimed: ClaimedWithHeartbeat) -> None:
    began = claimed.heartbeat._began_at
    claimed.heartbeat.tick(began + PUBLISH_AFTER_S - 0.001)
    assert claimed.bench.store.calls["read"] == 0
    assert claimed.view is None
    claimed.heartbeat.tick(began + PUBLISH_AFTER_S + 0.001)
    assert claimed.bench.store.calls["read"] == 1, "a step that is slightly longer costs one"


def test_a_view_that_redis_lost_is_rendered_again_by_a_heartbeat(claimed: ClaimedWithHeartbeat) -> None:
    with claimed.heartbeat_thread.attach(claimed.heartbeat):
        wait_until(lambda: claimed.view is not None, 5, "the view is published")
        claimed.bench.services.redis.flushall()
        wait_until(lambda: claimed.view is not None, 5, "the view is published again")
