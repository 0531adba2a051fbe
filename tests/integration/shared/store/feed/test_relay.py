"""Every change comes, in the order in which a majority took it, whoever relays and whatever happens to it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import redis
from pymongo.read_concern import ReadConcern

from shared import faults
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.feed_position import BATCH_CHANGES_MAX
from shared.errors import OutcomeUnknown, PositionExpired
from shared.live import pubsub
from shared.live.redis_client import connect
from shared.store.database import Database
from shared.store.feed.change_stream import ChangeStream
from tests.builders import NOON, SECOND, accepted, claimed
from tests.integration.shared.store.feed.conftest import FeedBench
from tests.waiting import wait_until
from worker.maintenance.feed_relay import FeedNotifier


def batches(bench: FeedBench) -> list[dict[str, Any]]:
    return list(bench.collection("changes").find().sort("_id", 1))


def told(bench: FeedBench) -> list[str]:
    return [each for batch in batches(bench) for each in batch["changes"]]


def streamed(bench: FeedBench) -> list[str]:
    """All visible changes since the feed began, as the stream itself tells them, one reply after the other."""
    with ChangeStream(bench.database, batches(bench)[0]["token"]) as stream:
        news, found = stream.open_cursor(), []
        while news.execution_ids:
            found += news.execution_ids
            news = stream.wait_for_changes(0.05)
    return found


def test_visible_changes_come_and_claims_heartbeats_and_tombstones_do_not(bench: FeedBench) -> None:
    run, gone = bench.accept(), accepted().execution
    bench.relay_all()
    assert told(bench) == [run.id]
    held = bench.store.save(run, replace(claimed(run, "only"), events=())).execution
    lease = held.lease_of("only")
    assert lease is not None
    bench.store.renew(lease, NOON + SECOND)
    bench.store.postpone([held])
    assert bench.store.withdraw(PUBLIC_INTEGRATOR, gone.id)
    bench.relay_all()
    assert told(bench) == [run.id]
    bench.change(held)
    bench.relay_all()
    assert told(bench) == [run.id] * 2


def test_what_commits_late_comes_after_what_was_read_before_it(bench: FeedBench) -> None:
    """Its id, its second and its clock are all older than those of a run that a reader has seen already."""
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
        assert [each.execution_id for each in page.changes] == [early, between]
        session.commit_transaction()
    bench.relay_all()
    assert bench.walk(page.next_position) == [late["_id"]]


def test_many_writers_at_once_miss_nothing_though_their_commits_overlap(bench: FeedBench) -> None:
    def write(_: int) -> set[str]:
        return {bench.accept().id for _ in range(25)}

    with bench.relaying(), ThreadPoolExecutor(16) as writers:
        start = bench.feed.end().position
        written = set().union(*writers.map(write, range(16)))
        bench.wait_for(written, start)
    assert sorted(told(bench)) == sorted(written)


def test_two_relays_at_once_write_the_stream_once_and_in_its_order(bench: FeedBench, another: Database) -> None:
    with bench.relaying(), bench.relaying(bench.relay(another)), ThreadPoolExecutor(4) as writers:
        written = {run.id for run in writers.map(lambda _: bench.accept(), range(150))}
        bench.wait_for(written)
    found = batches(bench)
    assert [batch["_id"] for batch in found] == list(range(1, len(found) + 1))
    assert len({batch["epoch"] for batch in found}) == 1
    assert told(bench) == streamed(bench)
    assert len(told(bench)) == 150


def test_a_relay_that_was_frozen_writes_nothing_twice_and_out_of_place(bench: FeedBench) -> None:
    """It wakes with changes that another has relayed since, and with a batch that would come after later ones."""
    frozen_at = bench.log.ensure_started()
    first = bench.accept()
    with ChangeStream(bench.database, frozen_at.token) as stream:
        held = stream.open_cursor()
    second = bench.accept()
    bench.relay_all()
    assert bench.log.append(frozen_at, held, as_of=NOON) is None
    bench.log.advance_watermark(frozen_at, held.token, as_of=NOON)
    third = bench.accept()
    bench.relay_all()
    assert told(bench) == [first.id, second.id, third.id]


@pytest.mark.parametrize("point", ["relay.read", "relay.written"])
def test_a_relay_that_breaks_between_stream_and_feed_goes_on_without_a_gap(bench: FeedBench, point: str) -> None:
    broke = threading.Event()

    def break_once() -> None:
        if not broke.is_set():
            broke.set()
            raise OutcomeUnknown

    with faults.armed(point, break_once), bench.relaying():
        runs = [bench.accept().id for _ in range(3)]
        wait_until(broke.is_set, 10, "it broke")
        bench.wait_for(set(runs))
    assert told(bench) == runs


def test_a_cursor_killed_in_mongod_is_opened_again_where_it_was(bench: FeedBench) -> None:
    def cursors() -> list[int]:
        name = bench.collection("executions").database.name
        mine = {"type": "idleCursor", "ns": f"{name}.executions"}
        admin = bench.collection("x").database.client.get_database("admin", read_concern=ReadConcern("local"))
        looked = admin.aggregate([{"$currentOp": {"idleCursors": True}}, {"$match": mine}])
        return [each["cursor"]["cursorId"] for each in looked]

    def kill() -> bool:
        found = cursors()
        if found:
            bench.collection("executions").database.command({"killCursors": "executions", "cursors": found})
        return bool(found)

    with bench.relaying():
        runs = [bench.accept().id]
        wait_until(kill, 10, "its cursor was killed")
        runs.append(bench.accept().id)
        bench.wait_for(set(runs))
    assert told(bench) == runs
    assert cursors() == []


def test_a_feed_at_rest_is_stamped_so_that_its_token_stays_young(bench: FeedBench) -> None:
    before = batches(bench)[-1]
    bench.hand.forward(60)
    bench.collection("elsewhere").insert_one({})
    bench.relay_all()
    with bench.relaying():
        wait_until(lambda: batches(bench)[-1]["token"] != before["token"], 10, "the token moves on")
        wait_until(lambda: bench.feed.end().watermark_at == bench.hand.now(), 10, "the stamp too")
    assert len(batches(bench)) == 1


def test_a_reply_that_was_full_makes_nothing_whole(bench: FeedBench) -> None:
    runs = [accepted(id=f"1763700000_{number:016x}") for number in range(BATCH_CHANGES_MAX + 5)]
    for run in runs:
        bench.store.create(run)
    before = bench.log.ensure_started()
    bench.hand.forward(1)
    with ChangeStream(bench.database, before.token) as stream:
        first = bench.log.append(before, stream.open_cursor(), as_of=bench.hand.now())
        assert first is not None
        assert bench.feed.end().watermark_at == before.watermark_at
        assert bench.log.append(first, stream.wait_for_changes(1), as_of=bench.hand.now())
    assert bench.feed.end().watermark_at == bench.hand.now()
    assert told(bench) == [run.execution.id for run in runs]


def test_who_waits_is_woken_once_a_majority_has_the_batch(bench: FeedBench, redis_url: str) -> None:
    relay = bench.relay()
    with closing(connect(redis_url)) as client, closing(client.pubsub(ignore_subscribe_messages=True)) as ear:  # type: ignore[no-untyped-call]
        ear.subscribe(pubsub.WAKEUP_CHANNEL)
        announcer, seen = FeedNotifier(client), []

        def announce() -> None:
            seen.append(told(bench)[-1])
            announcer()

        relay.notify = announce
        with bench.relaying(relay):
            run = bench.accept().id
            wait_until(lambda: (ear.get_message(timeout=0.1) or {}).get("data") == b"feed", 10, "the wake-up")
        assert seen == [run]


def test_a_redis_that_is_away_is_asked_once_a_second_and_holds_no_batch_up() -> None:
    asked = []

    class Away:
        def publish(self, *_: object) -> None:
            asked.append(1)
            raise redis.ConnectionError("away")

    announcer = FeedNotifier(Away())  # type: ignore[arg-type]
    for _ in range(5):
        announcer()
    assert len(asked) == 1


@pytest.mark.parametrize("lost", ["the oplog has rolled over", "the collection was dropped"])
def test_where_the_stream_is_lost_a_new_epoch_begins_and_old_cursors_expire(bench: FeedBench, lost: str) -> None:
    run = bench.accept()
    bench.relay_all()
    old = bench.page().next_position
    if lost == "the oplog has rolled over":
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
        wait_until(lambda: len({batch["epoch"] for batch in batches(bench)}) == 1, 10, "the old one is gone")
    assert told(bench) == [later]
    assert run.id != later
