"""What a page of the feed shows, and that no change is ever passed over between two pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.feed_position import FeedEnd, FeedPosition
from shared.errors import ConsumerNotFound, CursorInvalid, PositionExpired, Unavailable, ValidationFailed
from shared.store.feed.change_stream import ChangeBatch
from shared.store.feed.consumer_store import MongoConsumerStore
from shared.store.feed.reader import FeedReader
from shared.store.feed.writer import FEED_RETENTION
from tests.builders import NOON
from tests.integration.shared.store.feed.conftest import FeedBench


def write(bench: FeedBench, *batches: list[str]) -> None:
    """Write batches of the feed as a relay would."""
    last = bench.log.ensure_started()
    for batch in batches:
        written = bench.log.append(last, ChangeBatch(tuple(batch), last.token, is_full=False), as_of=bench.hand.now())
        assert written is not None
        last = written


def store(bench: FeedBench, number: int, **more: object) -> list[str]:
    """Store so many runs, only as far as the feed looks at them."""
    ids = [f"1763700000_{each:016x}" for each in range(number)]
    plain = {
        "integrator": PUBLIC_INTEGRATOR,
        "status": "completed",
        "rev": 3,
        "basket_name": "boring",
        "tags": [],
    } | more
    bench.collection("executions").insert_many([{"_id": each} | plain for each in ids])
    return ids


def test_ten_thousand_changes_are_walked_without_one_missing_or_out_of_order(bench: FeedBench) -> None:
    ids = store(bench, 10_000)
    write(bench, *(ids[at : at + 130] for at in range(0, 10_000, 130)))
    assert bench.walk(limit=1_000) == ids
    assert bench.walk(limit=77) == ids
    middle = bench.page(limit=333).next_position
    assert bench.walk(middle, limit=500) == ids[333:]


def test_a_page_shows_each_execution_once_at_its_latest_place_and_as_it_is_by_now(bench: FeedBench) -> None:
    a, b, c = store(bench, 3)
    write(bench, [a, b], [a], [c, a])
    page = bench.page()
    assert [(each.execution_id, each.rev) for each in page.changes] == [(b, 3), (c, 3), (a, 3)]
    short = bench.page(limit=2)
    assert [each.execution_id for each in short.changes] == [b, a]
    assert not short.is_last
    assert bench.walk(short.next_position) == [c, a]


def test_filters_make_pages_short_and_still_move_on(bench: FeedBench) -> None:
    bench.feed = FeedReader(bench.database, looked_at_max=10)
    ids = store(bench, 35)
    executions = bench.collection("executions")
    executions.update_one({"_id": ids[3]}, {"$set": {"basket_name": "rare", "tags": ["red", "blue"]}})
    executions.update_one({"_id": ids[31]}, {"$set": {"basket_name": "rare", "tags": ["red"]}})
    write(bench, ids)
    first = bench.page(limit=5, basket_name="rare")
    assert ([each.execution_id for each in first.changes], first.is_last) == ([ids[3]], False)
    second = bench.page(first.next_position, limit=5, basket_name="rare")
    assert (second.changes, second.is_last) == ((), False)
    assert bench.walk(limit=5, basket_name="rare") == [ids[3], ids[31]]
    assert bench.walk(limit=1, tag="red") == [ids[3], ids[31]]
    assert bench.walk(limit=5, basket_name="rare", tag="blue") == [ids[3]]
    assert bench.walk(limit=5, tag="$ne") == []


def test_other_integrators_executions_and_those_that_are_gone_are_left_out(bench: FeedBench) -> None:
    ids = store(bench, 4)
    executions = bench.collection("executions")
    executions.update_one({"_id": ids[0]}, {"$set": {"integrator": "other"}})
    executions.delete_one({"_id": ids[1]})
    executions.replace_one({"_id": ids[2]}, {"integrator": PUBLIC_INTEGRATOR, "withdrawn_at": NOON})
    write(bench, ids)
    assert bench.walk() == [ids[3]]


def test_a_hot_execution_cannot_hold_a_page_for_ever(bench: FeedBench) -> None:
    bench.feed = FeedReader(bench.database, changes_max=20)
    [hot] = store(bench, 1)
    write(bench, *([[hot]] * 50))
    assert bench.walk() == [hot] * 3


def test_places_beyond_the_end_are_refused_and_the_end_itself_is_not(bench: FeedBench) -> None:
    write(bench, store(bench, 3))
    end = bench.feed.end()
    assert bench.page(end.position).changes == ()
    beyond = [
        FeedPosition(end.epoch, end.batch_number + 1, 1, NOON),
        FeedPosition(end.epoch, end.batch_number + 2, 0, NOON),
    ]
    for place in [*beyond, FeedPosition(end.epoch, end.batch_number, 3, NOON)]:
        with pytest.raises(CursorInvalid):
            bench.page(place)
    with pytest.raises(PositionExpired):
        bench.page(FeedPosition("00000000", 1, 0, NOON))


def test_a_hole_is_never_read_over(bench: FeedBench) -> None:
    ids = store(bench, 6)
    write(bench, *([each] for each in ids))
    bench.collection("changes").delete_one({"_id": 3})
    for limit in (2, 100):
        with pytest.raises(PositionExpired):
            bench.page(limit=limit)


class _Ahead(FeedReader):
    """A feed whose end is a batch further than its batches, as where a later read sees less than an earlier one."""

    def _end(self, session: Any) -> FeedEnd:
        end = super()._end(session)
        return replace(end, batch_number=end.batch_number + 1)


def test_a_store_that_shows_less_than_it_has_just_shown_is_not_believed(bench: FeedBench) -> None:
    write(bench, store(bench, 2))
    bench.feed = _Ahead(bench.database)
    with pytest.raises(PositionExpired):
        bench.page()


def test_a_week_is_kept_and_the_last_batch_for_ever(bench: FeedBench) -> None:
    ids = store(bench, 3)
    write(bench, [ids[0]], [ids[1]])
    first = bench.page(limit=1).next_position
    start = FeedPosition(first.epoch, 1, 0, NOON)
    assert bench.log.trim(bench.log.ensure_started()) == 0
    bench.hand.at += FEED_RETENTION + timedelta(seconds=1)
    assert bench.log.trim(bench.log.ensure_started()) == 2
    assert bench.page(first).changes != (), "what a place still needs was kept"
    end = bench.page().next_position
    write(bench, [ids[2]])
    assert bench.log.trim(bench.log.ensure_started()) == 1
    for expired in (start, first):
        with pytest.raises(PositionExpired):
            bench.page(expired)
    assert bench.walk(end) == [ids[2]], "one that had read all misses nothing, however long it was away"
    assert bench.walk() == [ids[2]]


def test_a_feed_that_has_not_begun_is_unavailable_and_not_empty(bench: FeedBench) -> None:
    bench.collection("changes").drop()
    with pytest.raises(Unavailable):
        bench.page()


def test_acknowledging_moves_a_consumer_forward_only(bench: FeedBench) -> None:
    consumers = MongoConsumerStore(bench.database, bench.hand)
    start = bench.feed.end().position
    made, is_new = consumers.add(PUBLIC_INTEGRATOR, "a", start)
    assert (made.position, is_new, made.acked_at) == (start, True, None)
    write(bench, store(bench, 5), ["x"])
    end, middle = bench.feed.end(), bench.page(start, limit=3).next_position
    assert consumers.add(PUBLIC_INTEGRATOR, "a", end.position) == (made, False)
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", middle, end).position == middle
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", start, end).position == middle
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", end.position, end).position == end.position
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", middle, end).position == end.position
    anew = bench.log.start_epoch(bench.log.ensure_started())
    there = bench.feed.end()
    assert there.epoch == anew.epoch
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", there.position, there).position == there.position, (
        "the way on after a resync"
    )
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", end.position, there).position == there.position, (
        "an epoch that is over never comes back"
    )


def test_how_long_a_consumer_lags_is_told_and_none_where_it_expired(bench: FeedBench) -> None:
    start = bench.feed.end().position
    write(bench, ["a"], ["b"])
    now = bench.hand.forward(90)
    end = bench.feed.end().position
    over = FeedPosition("00000000", 1, 0, NOON)
    assert bench.feed.lags_s([start, end, over], now) == [90.0, 0.0, None]


def test_consumers_are_so_many_at_most_and_known_ones_stay(bench: FeedBench) -> None:
    consumers, start = MongoConsumerStore(bench.database, bench.hand, consumers_max=1), bench.feed.end().position
    consumers.add(PUBLIC_INTEGRATOR, "a", start)
    with pytest.raises(ValidationFailed):
        consumers.add(PUBLIC_INTEGRATOR, "b", start)
    consumers.add("other", "b", start)
    assert [each.name for each in consumers.all(PUBLIC_INTEGRATOR)] == ["a"]
    with pytest.raises(ConsumerNotFound):
        consumers.get(PUBLIC_INTEGRATOR, "b")
    consumers.remove(PUBLIC_INTEGRATOR, "a")
    assert consumers.add(PUBLIC_INTEGRATOR, "b", start)[1]
