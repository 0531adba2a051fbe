"""Pages of the feed: their content, and that no change is skipped between two pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.feed_position import FeedEnd, FeedPosition
from shared.errors import ConsumerNotFound, Unavailable, ValidationFailed
from shared.store.feed.change_stream import ChangeBatch
from shared.store.feed.consumer_store import MongoConsumerStore
from shared.store.feed.feed_errors import PositionExpired
from shared.store.feed.reader import FeedReader
from shared.store.feed.writer import FEED_RETENTION
from tests.builders import NOON
from tests.integration.shared.store.feed.conftest import FeedBench


def write(bench: FeedBench, *batches: list[str]) -> None:
    """Write batches to the feed as a relay would."""
    last = bench.log.ensure_started()
    for batch in batches:
        written = bench.log.append(last, ChangeBatch(tuple(batch), last.token, is_full=False), as_of=bench.hand.now())
        assert written is not None
        last = written


def store(bench: FeedBench, number: int, **fields: object) -> list[str]:
    """Store ``number`` runs with only the fields that the feed reads, and return their ids."""
    ids = [f"1763700000_{number_:016x}" for number_ in range(number)]
    plain = {
        "integrator": PUBLIC_INTEGRATOR,
        "status": "completed",
        "rev": 3,
        "basket_name": "boring",
        "tags": [],
    } | fields
    bench.collection("executions").insert_many([{"_id": number_} | plain for number_ in ids])
    return ids


def test_ten_thousand_changes_are_read_without_a_gap_and_in_order(bench: FeedBench) -> None:
    ids = store(bench, 10_000)
    write(bench, *(ids[at : at + 130] for at in range(0, 10_000, 130)))
    assert bench.walk(limit=1_000) == ids
    assert bench.walk(limit=77) == ids
    middle = bench.page(limit=333).next_position
    assert bench.walk(middle, limit=500) == ids[333:]


def test_a_page_shows_each_execution_once_at_its_latest_position_and_in_its_current_state(bench: FeedBench) -> None:
    a, b, c = store(bench, 3)
    write(bench, [a, b], [a], [c, a])
    page = bench.page()
    assert [(change.execution_id, change.rev) for change in page.changes] == [(b, 3), (c, 3), (a, 3)]
    short = bench.page(limit=2)
    assert [change.execution_id for change in short.changes] == [b, a]
    assert not short.is_last
    assert bench.walk(short.next_position) == [c, a]


def test_filters_make_pages_short_and_the_cursor_still_advances(bench: FeedBench) -> None:
    bench.feed = FeedReader(bench.database, executions_scanned_max=10)
    ids = store(bench, 35)
    executions = bench.collection("executions")
    executions.update_one({"_id": ids[3]}, {"$set": {"basket_name": "rare", "tags": ["red", "blue"]}})
    executions.update_one({"_id": ids[31]}, {"$set": {"basket_name": "rare", "tags": ["red"]}})
    write(bench, ids)
    first = bench.page(limit=5, basket_name="rare")
    assert ([change.execution_id for change in first.changes], first.is_last) == ([ids[3]], False)
    second = bench.page(first.next_position, limit=5, basket_name="rare")
    assert (second.changes, second.is_last) == ((), False)
    assert bench.walk(limit=5, basket_name="rare") == [ids[3], ids[31]]
    assert bench.walk(limit=1, tag="red") == [ids[3], ids[31]]
    assert bench.walk(limit=5, basket_name="rare", tag="blue") == [ids[3]]
    assert bench.walk(limit=5, tag="$ne") == []


def test_executions_of_other_integrators_and_deleted_ones_are_left_out(bench: FeedBench) -> None:
    ids = store(bench, 4)
    executions = bench.collection("executions")
    executions.update_one({"_id": ids[0]}, {"$set": {"integrator": "other"}})
    executions.delete_one({"_id": ids[1]})
    executions.replace_one({"_id": ids[2]}, {"integrator": PUBLIC_INTEGRATOR, "withdrawn_at": NOON})
    write(bench, ids)
    assert bench.walk() == [ids[3]]


def test_an_execution_that_changes_often_does_not_make_a_page_endless(bench: FeedBench) -> None:
    bench.feed = FeedReader(bench.database, changes_max=20)
    [hot] = store(bench, 1)
    write(bench, *([[hot]] * 50))
    assert bench.walk() == [hot] * 3


def test_positions_after_the_end_are_expired_and_the_end_itself_is_not(bench: FeedBench) -> None:
    """They were made before the store was restored; as malformed ones they would leave no way to catch up."""
    write(bench, store(bench, 3))
    end = bench.feed.end()
    assert bench.page(end.position).changes == ()
    beyond = [
        FeedPosition(end.epoch, end.batch_number + 1, 1, NOON),
        FeedPosition(end.epoch, end.batch_number + 2, 0, NOON),
    ]
    for position in [*beyond, FeedPosition(end.epoch, end.batch_number, 3, NOON)]:
        with pytest.raises(PositionExpired):
            bench.page(position)
    with pytest.raises(PositionExpired):
        bench.page(FeedPosition("00000000", 1, 0, NOON))


def test_a_feed_whose_collection_was_dropped_begins_anew_and_older_cursors_are_expired(bench: FeedBench) -> None:
    """The advice of docs/operate.md for a restored MongoDB: it holds however long the feed becomes again."""
    [run] = store(bench, 1)
    write(bench, [run])
    lost = bench.feed.end().position
    bench.collection("changes").drop()
    write(bench, *([[run]] * 9))
    with pytest.raises(PositionExpired):
        bench.page(lost)
    assert bench.page().changes


def test_a_gap_is_never_skipped(bench: FeedBench) -> None:
    ids = store(bench, 6)
    write(bench, *([execution_id] for execution_id in ids))
    bench.collection("changes").delete_one({"_id": 3})
    for limit in (2, 100):
        with pytest.raises(PositionExpired):
            bench.page(limit=limit)


class _Ahead(FeedReader):
    """A feed whose end is one batch after its batches, as if a later read sees less than an earlier one."""

    def _end(self, session: Any) -> FeedEnd:
        end = super()._end(session)
        return replace(end, batch_number=end.batch_number + 1)


def test_a_read_that_shows_less_than_an_earlier_one_is_refused(bench: FeedBench) -> None:
    write(bench, store(bench, 2))
    bench.feed = _Ahead(bench.database)
    with pytest.raises(PositionExpired):
        bench.page()


def test_batches_are_kept_for_a_week_and_the_last_one_for_ever(bench: FeedBench) -> None:
    ids = store(bench, 3)
    write(bench, [ids[0]], [ids[1]])
    first = bench.page(limit=1).next_position
    start = FeedPosition(first.epoch, 1, 0, NOON)
    assert bench.log.trim(bench.log.ensure_started()) == 0
    bench.hand.current += FEED_RETENTION + timedelta(seconds=1)
    assert bench.log.trim(bench.log.ensure_started()) == 2
    assert bench.page(first).changes != (), "the batches after a position of the last week are kept"
    end = bench.page().next_position
    write(bench, [ids[2]])
    assert bench.log.trim(bench.log.ensure_started()) == 1
    for expired in (start, first):
        with pytest.raises(PositionExpired):
            bench.page(expired)
    assert bench.walk(end) == [ids[2]], "a consumer that had read all misses nothing, however long it was away"
    assert bench.walk() == [ids[2]]


def test_a_feed_that_has_not_started_is_unavailable_and_not_empty(bench: FeedBench) -> None:
    bench.collection("changes").drop()
    with pytest.raises(Unavailable):
        bench.page()


def test_an_acknowledgement_moves_a_consumer_only_forward(bench: FeedBench) -> None:
    consumers = MongoConsumerStore(bench.database, bench.hand)
    start = bench.feed.end().position
    consumer, is_new = consumers.add(PUBLIC_INTEGRATOR, "a", start)
    assert (consumer.position, is_new, consumer.acked_at) == (start, True, None)
    write(bench, store(bench, 5), ["x"])
    end, middle = bench.feed.end(), bench.page(start, limit=3).next_position
    assert consumers.add(PUBLIC_INTEGRATOR, "a", end.position) == (consumer, False)
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", middle, end).position == middle
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", start, end).position == middle
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", end.position, end).position == end.position
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", middle, end).position == end.position
    anew = bench.log.start_epoch(bench.log.ensure_started())
    position = bench.feed.end()
    assert position.epoch == anew.epoch
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", position.position, position).position == position.position, (
        "the way to continue after a resync"
    )
    assert consumers.ack(PUBLIC_INTEGRATOR, "a", end.position, position).position == position.position, (
        "an ended epoch never comes back"
    )


def test_the_lag_of_a_consumer_is_reported_and_none_if_it_expired(bench: FeedBench) -> None:
    start = bench.feed.end().position
    write(bench, ["a"], ["b"])
    now = bench.hand.advance(90)
    end = bench.feed.end().position
    expired = FeedPosition("00000000", 1, 0, NOON)
    assert bench.feed.lags_s([start, end, expired], now) == [90.0, 0.0, None]


def test_the_changes_behind_a_consumer_are_counted_and_beyond_some_batches_estimated(bench: FeedBench) -> None:
    start = bench.feed.end().position
    write(bench, ["a", "b"], ["c"], ["d", "e", "f"])
    inside = replace(start, offset=1)
    expired = FeedPosition("00000000", 1, 0, NOON)
    assert bench.feed.changes_behind([start, inside, bench.feed.end().position, expired]) == [6, 5, 0, None]
    short = FeedReader(bench.database, batches_counted_max=2)
    assert short.changes_behind([start]) == [6], "four of two batches, and two as their mean"
    assert bench.feed.changes_behind([]) == []


def test_the_number_of_consumers_is_limited_and_existing_ones_stay(bench: FeedBench) -> None:
    consumers, start = MongoConsumerStore(bench.database, bench.hand, consumers_max=1), bench.feed.end().position
    consumers.add(PUBLIC_INTEGRATOR, "a", start)
    with pytest.raises(ValidationFailed):
        consumers.add(PUBLIC_INTEGRATOR, "b", start)
    consumers.add("other", "b", start)
    assert [consumer.name for consumer in consumers.all(PUBLIC_INTEGRATOR)] == ["a"]
    assert [consumer.name for consumer in consumers.all(None)] == ["a", "b"], "the limit is that of one integrator"
    with pytest.raises(ConsumerNotFound):
        consumers.get(PUBLIC_INTEGRATOR, "b")
    consumers.remove(PUBLIC_INTEGRATOR, "a")
    assert consumers.add(PUBLIC_INTEGRATOR, "b", start)[1]


@pytest.mark.parametrize("changes", [{"$set": {"status": "weird"}}, {"$unset": {"rev": ""}}, {"$set": {"tags": 5}}])
def test_a_run_that_cannot_be_read_is_left_out_and_the_cursor_moves_on(
    bench: FeedBench, changes: dict[str, Any]
) -> None:
    ids = store(bench, 9)
    bench.collection("executions").update_many({"_id": {"$in": ids[2:7]}}, changes)
    write(bench, ids)
    assert bench.walk(limit=2) == [*ids[:2], *ids[7:]]
