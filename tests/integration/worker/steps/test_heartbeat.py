"""The thread beside a step: its lease stays, its lines get through, and it notices when the step has moved on."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo.read_concern import ReadConcern

from shared.domain.execution import Execution, ExecutionRecord, Lease
from shared.domain.lifecycle.transitions import claim
from shared.live.render import parse_header
from tests.integration.worker.conftest import SETTINGS, Bench
from tests.waiting import wait_until
from worker.steps.heartbeat import PUBLISH_AFTER_S, Heartbeat, HeartbeatThread
from worker.steps.pending_writes import PendingWrites
from worker.steps.reporter import StepReporter


@dataclass
class Beating:
    """A claimed step and its heartbeat, not started yet."""

    bench: Bench
    run: Execution
    lease: Lease
    reporter: StepReporter
    heartbeat: Heartbeat
    stopped: queue.Queue[str]
    companion: HeartbeatThread

    @property
    def due_by(self) -> datetime:
        """When the step's lease ends, as stored; the run's own must be the same."""
        # As the primary has it: a majority may lie behind the claim, which waits for none. And in one read: the
        # companion may renew between two.
        executions = self.bench.services.database.collection("executions").with_options(
            read_concern=ReadConcern("local")
        )
        stored = executions.find_one({"_id": self.run.id})
        assert stored is not None
        due_by: datetime = stored["steps"]["s1"]["due_by"]
        assert stored["due_by"] == due_by
        return due_by

    @property
    def shown(self) -> bytes | None:
        """The view in Redis."""
        return self.bench.services.views.get(self.run.id)


@pytest.fixture
def beating(bench: Bench) -> Beating:
    run = bench.accept("echo", "echo")
    advance = claim(run, "s1", "token", bench.hand.now(), bench.services.timings)
    assert advance is not None
    claimed = bench.services.store.save(run, advance).execution
    lease = claimed.lease_of("s1")
    reporter = StepReporter("echo", "s1", bench.hand.now)
    stopped: queue.Queue[str] = queue.Queue()
    draft = PendingWrites(bench.services, ExecutionRecord(claimed), lease, published_seq=1, give_up=lambda: False)
    heartbeat = Heartbeat(bench.services, draft, lease, reporter, request_stop=stopped.put)
    companion = HeartbeatThread()
    companion.start()
    return Beating(bench, claimed, lease, reporter, heartbeat, stopped, companion)


def test_a_lease_is_renewed_and_moves_neither_version_nor_rev(beating: Beating) -> None:
    with beating.companion.attach(beating.heartbeat):
        moved = beating.bench.hand.forward(60)
        # Not merely later than it was: a renewal may be under way while the hand moves.
        lease = timedelta(seconds=SETTINGS["lease_s"])
        wait_until(lambda: beating.due_by - moved >= lease, 5, "it is renewed")
    now = beating.bench.read(beating.run).execution
    assert (now.version, now.rev) == (beating.run.version, beating.run.rev)


def test_a_heartbeat_that_failed_is_tried_again_at_once_and_not_a_period_later(beating: Beating) -> None:
    beating.bench.store.fail("renew", before=3, after=1)
    first = beating.due_by
    with beating.companion.attach(beating.heartbeat):
        beating.bench.hand.forward(60)
        wait_until(lambda: beating.bench.store.asked["renew"] >= 5, 5, "it is tried again")
        wait_until(lambda: beating.due_by > first, 5, "it is renewed")
        assert beating.stopped.empty()


def test_a_lease_that_is_lost_is_noticed(beating: Beating) -> None:
    with beating.companion.attach(beating.heartbeat):
        beating.bench.lose(beating.run)
        assert beating.stopped.get(timeout=5) == "lost"


@pytest.mark.parametrize("fault", ["before", "after"])
def test_lines_that_the_store_did_not_take_are_put_back_in_their_order(beating: Beating, fault: str) -> None:
    def told() -> list[str]:
        return [event.message for event in beating.bench.read(beating.run).events if event.event == "agent.log"]

    beating.bench.store.fail("report", **{fault: 2})
    with beating.companion.attach(beating.heartbeat):
        for number in range(3):
            beating.reporter.line("info", f"line {number}", b"{}")
            time.sleep(SETTINGS["heartbeat_s"] / 2)
        wait_until(lambda: beating.bench.store.asked["report"] >= 3, 5, "it is tried again")
        wait_until(lambda: "line 2" in told(), 5, "the last one has come")
    assert beating.reporter.take_report().is_empty, "nothing is left behind"
    assert list(dict.fromkeys(told())) == ["line 0", "line 1", "line 2"]
    if fault == "before":
        assert told() == ["line 0", "line 1", "line 2"], "nothing was written, so nothing is doubled"


def test_progress_that_came_after_a_failed_report_stays_the_newer(beating: Beating) -> None:
    beating.reporter.progress(10, "ten")
    taken = beating.reporter.take_report()
    beating.reporter.progress(20, None)
    beating.reporter.restore_report(taken)
    report = beating.reporter.take_report()
    assert (report.percent, report.message) == (20, "ten")


def test_a_flood_keeps_the_newest_lines_and_counts_the_others_also_when_put_back(beating: Beating) -> None:
    for number in range(1_500):
        beating.reporter.line("info", str(number), b"{}")
    first = beating.reporter.take_report()
    assert (len(first.events), first.dropped, first.events[0].message) == (1_000, 500, "500")
    beating.reporter.line("info", "1500", b"{}")
    beating.reporter.restore_report(first)
    again = beating.reporter.take_report()
    assert (len(again.events), again.dropped, again.events[-1].message) == (1_000, 501, "1500")


def test_a_step_that_lasts_is_shown_and_a_quick_one_is_left_to_its_end(beating: Beating) -> None:
    with beating.companion.attach(beating.heartbeat):
        wait_until(lambda: beating.shown is not None, 5, "it is shown")
    assert beating.shown is not None
    assert (parse_header(beating.shown).status, parse_header(beating.shown).rev) == ("running", beating.run.rev)


def test_a_claim_that_is_long_no_majoritys_is_shown_once_it_is_one_and_asked_for_seldom(beating: Beating) -> None:
    bench, looks, tick = beating.bench, list[float](), [0.0]
    lost = replace(beating.run, steps={"s1": replace(beating.run.steps["s1"], token=None, claims=0)})

    def read(*args: Any, **options: Any) -> ExecutionRecord:
        looks.append(tick[0])
        return ExecutionRecord(beating.run if tick[0] > 0.9 else lost)

    bench.store.read = read  # type: ignore[attr-defined]
    slow = replace(bench.services, settings=replace(bench.services.settings, lease_s=120, heartbeat_s=60))
    draft = PendingWrites(slow, ExecutionRecord(beating.run), beating.lease, published_seq=1, give_up=lambda: False)
    heartbeat = Heartbeat(slow, draft, beating.lease, beating.reporter, request_stop=beating.stopped.put)
    for number in range(80):  # two seconds, of which nobody waits for one
        tick[0] = number * 0.025
        heartbeat.tick(heartbeat._began_at + tick[0])
    assert beating.shown is not None
    assert parse_header(beating.shown).status == "running"
    assert 0.9 < looks[-1] < 1.4
    assert len(looks) < 10


def test_a_quick_step_costs_no_read(beating: Beating) -> None:
    began = beating.heartbeat._began_at
    beating.heartbeat.tick(began + PUBLISH_AFTER_S - 0.001)
    assert beating.bench.store.asked["read"] == 0
    assert beating.shown is None
    beating.heartbeat.tick(began + PUBLISH_AFTER_S + 0.001)
    assert beating.bench.store.asked["read"] == 1, "one that is a moment longer does"


def test_a_view_that_redis_forgot_is_rendered_anew_by_a_heartbeat(beating: Beating) -> None:
    with beating.companion.attach(beating.heartbeat):
        wait_until(lambda: beating.shown is not None, 5, "it is shown")
        beating.bench.services.redis.flushall()
        wait_until(lambda: beating.shown is not None, 5, "it is shown again")
