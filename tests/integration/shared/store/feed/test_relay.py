"""The feed relay: every change comes, in majority commit order, whichever relay writes it and whatever fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import redis
from pymongo.read_concern import ReadConcern

from shared import fault_injection
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.feed_position import BATCH_CHANGES_MAX
from shared.errors import OutcomeUnknown
from shared.live.redis_client import connect
from shared.live.signals import pubsub
from shared.store.database import Database
from shared.store.feed.change_stream import ChangeStream
from shared.store.feed.feed_errors import PositionExpired
from tests.builders import NOON, SECOND, accept_decision, claim_decision
from tests.integration.shared.store.feed.conftest import FeedBench
from tests.waiting import wait_until
from worker.maintenance.feed_relay import FeedNotifier


def batches(bench: FeedBench) -> list[dict[str, Any]]:
    return list(bench.collection("changes").find().sort("_id", 1))


def fed_changes(bench: FeedBench) -> list[str]:
    return [change for batch in batches(bench) for change in batch["changes"]]


def stream_changes(bench: FeedBench) -> list[str]:
    """Return all visible changes since the start of the feed, read directly from the change stream."""
    with ChangeStream(bench.database, batches(bench)[0]["token"]) as stream:
        batch, changes = stream.open_cursor(), []
        while batch.execution_ids:
            changes += batch.execution_ids
            batch = stream.wait_for_changes(0.05)
    return changes


def test_visible_changes_come_and_claims_heartbeats_and_tombstones_do_not(bench: FeedBench) -> None:
    run, withdrawn = bench.accept(), accept_decision().execution
    bench.relay_all()
    assert fed_changes(bench) == [run.id]
    claimed_run = bench.store.save(run, replace(claim_decision(run, "only"), events=())).execution
    lease = claimed_run.lease_of("only")
    assert lease is not None
    bench.store.renew(lease, NOON + SECOND)
    bench.store.postpone([claimed_run])
    assert bench.store.withdraw(PUBLIC_INTEGRATOR, withdrawn.id)
    bench.relay_all()
    assert fed_changes(bench) == [run.id]
    bench.change(claimed_run)
    bench.relay_all()
    assert fed_changes(bench) == [run.id] * 2


def test_a_late_commit_comes_after_changes_that_were_read_before(bench: FeedBench) -> None:
    """Its id, its time and its cluster time are all older than those of a run that a reader has already seen."""
    executions = bench.collection("executions")
    with bench.database.session() as session:
        session.start_transaction()
        early = bench.accept().id
        document = executions.find_one({"_id": early})
        assert document is not None
        late = document | {"_id": f"0{early[1:]}"}
        executions.insert_one(late, session=session)
        between = bench.accept().id
        bench.relay_all()
        page = bench.page()
        assert [change.execution_id for change in page.changes] == [early, between]
        session.commit_transaction()
    bench.relay_all()
    assert bench.walk(page.next_position) == [late["_id"]]


def test_no_change_of_many_writers_is_missing_although_their_commits_overlap(bench: FeedBench) -> None:
    def write(_: int) -> set[str]:
        return {bench.accept().id for _ in range(25)}

    with bench.relaying(), ThreadPoolExecutor(16) as writers:
        start = bench.feed.end().position
        written = set().union(*writers.map(write, range(16)))
        bench.wait_for(written, start)
    assert sorted(fed_changes(bench)) == sorted(written)


def test_two_relays_at_once_write_the_stream_once_and_in_order(bench: FeedBench, other_database: Database) -> None:
    with bench.relaying(), bench.relaying(bench.relay(other_database)), ThreadPoolExecutor(4) as writers:
        written = {run.id for run in writers.map(lambda _: bench.accept(), range(150))}
        bench.wait_for(written)
    stored = batches(bench)
    assert [batch["_id"] for batch in stored] == list(range(1, len(stored) + 1))
    assert len({batch["epoch"] for batch in stored}) == 1
    assert fed_changes(bench) == stream_changes(bench)
    assert len(fed_changes(bench)) == 150


def test_a_relay_that_was_frozen_writes_nothing_twice_or_out_of_order(bench: FeedBench) -> None:
    """It wakes with changes that another relay has written since, and with a batch that would come after later ones."""
    frozen_at = bench.log.ensure_started()
    first = bench.accept()
    with ChangeStream(bench.database, frozen_at.token) as stream:
        open_cursor = stream.open_cursor()
    second = bench.accept()
    bench.relay_all()
    assert bench.log.append(frozen_at, open_cursor, as_of=NOON) is None
    bench.log.advance_watermark(frozen_at, open_cursor.token, as_of=NOON)
    third = bench.accept()
    bench.relay_all()
    assert fed_changes(bench) == [first.id, second.id, third.id]


@pytest.mark.parametrize("point", ["relay.read", "relay.written"])
def test_a_relay_that_fails_between_stream_and_feed_continues_without_a_gap(bench: FeedBench, point: str) -> None:
    broke = threading.Event()

    def break_once() -> None:
        if not broke.is_set():
            broke.set()
            raise OutcomeUnknown

    with patch.dict(fault_injection.ARMED, {point: break_once}), bench.relaying():
        runs = [bench.accept().id for _ in range(3)]
        wait_until(broke.is_set, 10, "it broke")
        bench.wait_for(set(runs))
    assert fed_changes(bench) == runs


def test_a_cursor_killed_in_mongod_is_opened_again_where_it_was(bench: FeedBench) -> None:
    def cursors() -> list[int]:
        name = bench.collection("executions").database.name
        mine = {"type": "idleCursor", "ns": f"{name}.executions"}
        admin = bench.collection("x").database.client.get_database("admin", read_concern=ReadConcern("local"))
        entries = admin.aggregate([{"$currentOp": {"idleCursors": True}}, {"$match": mine}])
        return [entry["cursor"]["cursorId"] for entry in entries]

    def kill() -> bool:
        cursor_ids = cursors()
        if cursor_ids:
            bench.collection("executions").database.command({"killCursors": "executions", "cursors": cursor_ids})
        return bool(cursor_ids)

    with bench.relaying():
        runs = [bench.accept().id]
        wait_until(kill, 10, "its cursor was killed")
        runs.append(bench.accept().id)
        bench.wait_for(set(runs))
    assert fed_changes(bench) == runs
    assert cursors() == []


def test_an_idle_feed_renews_its_resume_token(bench: FeedBench) -> None:
    before = batches(bench)[-1]
    bench.hand.advance(60)
    bench.collection("elsewhere").insert_one({})
    bench.relay_all()
    with bench.relaying():
        wait_until(lambda: batches(bench)[-1]["token"] != before["token"], 10, "the token advances")
        wait_until(lambda: bench.feed.end().watermark_at == bench.hand.now(), 10, "its time too")
    assert len(batches(bench)) == 1


def test_after_a_full_reply_the_feed_has_not_caught_up(bench: FeedBench) -> None:
    runs = [accept_decision(id=f"1763700000_{number:016x}") for number in range(BATCH_CHANGES_MAX + 5)]
    for run in runs:
        bench.store.create(run)
    before = bench.log.ensure_started()
    bench.hand.advance(1)
    with ChangeStream(bench.database, before.token) as stream:
        first = bench.log.append(before, stream.open_cursor(), as_of=bench.hand.now())
        assert first is not None
        assert bench.feed.end().watermark_at == before.watermark_at
        assert bench.log.append(first, stream.wait_for_changes(1), as_of=bench.hand.now())
    assert bench.feed.end().watermark_at == bench.hand.now()
    assert fed_changes(bench) == [run.execution.id for run in runs]


def test_held_reads_are_woken_when_a_majority_has_the_batch(bench: FeedBench, redis_url: str) -> None:
    relay = bench.relay()
    with closing(connect(redis_url)) as client, closing(client.pubsub(ignore_subscribe_messages=True)) as ear:  # type: ignore[no-untyped-call]
        ear.subscribe(pubsub.WAKEUP_CHANNEL)
        notifier, messages = FeedNotifier(client), []

        def announce() -> None:
            messages.append(fed_changes(bench)[-1])
            notifier()

        relay.notify = announce
        with bench.relaying(relay):
            run = bench.accept().id
            wait_until(lambda: (ear.get_message(timeout=0.1) or {}).get("data") == b"feed", 10, "the wake-up")
        assert messages == [run]


def test_a_missing_redis_is_tried_once_a_second_and_delays_no_batch() -> None:
    attempts = []

    class Away:
        def publish(self, *_: object) -> None:
            attempts.append(1)
            raise redis.ConnectionError("away")

    announcer = FeedNotifier(Away())  # type: ignore[arg-type]
    for _ in range(5):
        announcer()
    assert len(attempts) == 1


@pytest.mark.parametrize("cause", ["the oplog has rolled over", "the collection was dropped"])
def test_if_the_stream_is_lost_a_new_epoch_begins_and_old_cursors_expire(bench: FeedBench, cause: str) -> None:
    run = bench.accept()
    bench.relay_all()
    old = bench.page().next_position
    if cause == "the oplog has rolled over":
        token = bench.log.ensure_started().token["_data"]
        ancient = {"_data": f"{token[:2]}00000001{token[10:]}"}
        bench.collection("changes").update_one({"_id": old.batch_number - 1}, {"$set": {"token": ancient}})
    else:
        bench.collection("executions").drop()
    epoch = bench.feed.end().epoch
    with bench.relaying():
        wait_until(lambda: bench.feed.end().epoch != epoch, 10, "a new epoch")
        with pytest.raises(PositionExpired):
            bench.page(old)
        later = bench.accept().id
        bench.wait_for({later})
        wait_until(lambda: len({batch["epoch"] for batch in batches(bench)}) == 1, 10, "the old consumer is expired")
    assert fed_changes(bench) == [later]
    assert run.id != later
