"""Views in Redis: a view is replaced only by a newer one and expires unless it is renewed."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import redis

from shared.live.signals.pubsub import WAKEUP_CHANNEL
from shared.live.views import (
    CARRIED_VIEW_MAX_BYTES,
    COPY_MAX_BYTES,
    COPY_TTL_MS,
    FILLED_VIEW_TTL_MS,
    FINAL_VIEW_TTL_S,
    OUTPUT_TTL_S,
    VIEW_MAX_BYTES,
    RenderedView,
    ViewCache,
    copy_key,
    erased_key,
    output_key,
    view_key,
)

OWNER, RUN = "public", "1763700000_89ce24ad1b2c3d4e"
LIVE_S = 15.0


def view(rev: int, text: str = "", done: str = "false") -> bytes:
    head = f'{{"execution_id":"{RUN}","basket_name":"b","status":"running","done":{done},"rev":{rev}'
    return f'{head},"text":"{text}"'.encode()


@pytest.fixture
def views(client: redis.Redis) -> ViewCache:
    return ViewCache(client, LIVE_S)


def put(client: redis.Redis, views: ViewCache, text: bytes, rev: int, *, final: bool = False) -> None:
    pipe = client.pipeline(transaction=False)
    views.put(pipe, [RenderedView(OWNER, RUN, text, rev, final)])
    pipe.execute()


def test_a_higher_revision_is_never_replaced_by_a_lower_one(client: redis.Redis, views: ViewCache) -> None:
    put(client, views, view(9), 9)
    put(client, views, view(10, "newer"), 10)
    put(client, views, view(9, "late"), 9)
    assert views.get(OWNER, RUN) == view(10, "newer")


def test_whatever_the_order_of_many_writers_the_highest_revision_stays(client: redis.Redis, views: ViewCache) -> None:
    revs = [*range(1, 120)] * 2
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda rev: put(client, views, view(rev), rev), itertools.chain(revs, reversed(revs))))
    assert views.get(OWNER, RUN) == view(119)


def test_the_same_revision_is_written_again(client: redis.Redis, views: ViewCache) -> None:
    put(client, views, view(3), 3)
    put(client, views, view(3, "again"), 3)
    assert views.get(OWNER, RUN) == view(3, "again")


def test_several_views_are_put_at_once_and_each_is_compared_by_its_own_revision(
    client: redis.Redis, views: ViewCache
) -> None:
    runs = [f"{RUN[:-1]}{number}" for number in range(4)]
    for run, rev in zip(runs, (1, 9, 1, 1), strict=True):
        views.put(client, [RenderedView(OWNER, run, view(rev, "known"), rev, is_final=False)])
    pipe = client.pipeline(transaction=False)
    sizes = ("", "", "x" * VIEW_MAX_BYTES, "")
    views.put(
        pipe,
        [RenderedView(OWNER, run, view(5, size), 5, run == runs[3]) for run, size in zip(runs, sizes, strict=True)],
    )
    assert len(pipe) == 3, "one command, and two for the view that is too large"
    pipe.execute()
    assert [views.get(OWNER, run) for run in runs] == [view(5), view(9, "known"), None, view(5)]
    assert client.ttl(view_key(OWNER, runs[0])) <= LIVE_S < client.ttl(view_key(OWNER, runs[3]))  # type: ignore[operator]


def test_text_that_looks_like_a_revision_is_not_one(client: redis.Redis, views: ViewCache) -> None:
    put(client, views, view(3, '\\"rev\\":999'), 3)
    put(client, views, view(4), 4)
    assert views.get(OWNER, RUN) == view(4)


def fill(views: ViewCache, text: bytes, rev: int, *, final: bool = False) -> None:
    views.fill(RenderedView(OWNER, RUN, text, rev, final))


def test_a_reader_stores_its_view_for_a_short_time_and_replaces_no_newer_one(
    client: redis.Redis, views: ViewCache
) -> None:
    fill(views, view(5), 5)
    assert 0 < client.pttl(view_key(OWNER, RUN)) <= FILLED_VIEW_TTL_MS  # type: ignore[operator]
    put(client, views, view(6), 6)
    fill(views, view(5), 5)
    fill(views, view(6, "again"), 6)
    assert views.get(OWNER, RUN) == view(6)
    assert client.pttl(view_key(OWNER, RUN)) > FILLED_VIEW_TTL_MS  # type: ignore[operator]


def test_what_a_reader_has_shown_replaces_an_older_view(client: redis.Redis, views: ViewCache) -> None:
    put(client, views, view(9), 9)
    fill(views, view(10), 10)
    assert views.get(OWNER, RUN) == view(10)
    put(client, views, view(9, "late"), 9)
    assert views.get(OWNER, RUN) == view(10)
    fill(views, view(11, "x" * VIEW_MAX_BYTES), 11)
    assert views.get(OWNER, RUN) is None, "an older one must not be shown again"


def test_a_final_view_stays_for_a_day_and_a_live_one_for_half_a_lease(client: redis.Redis, views: ViewCache) -> None:
    put(client, views, view(1), 1)
    assert LIVE_S * 1_000 - 1_000 < client.pttl(view_key(OWNER, RUN)) <= LIVE_S * 1_000  # type: ignore[operator]
    put(client, views, view(2, done="true"), 2, final=True)
    assert FINAL_VIEW_TTL_S - 2 < client.ttl(view_key(OWNER, RUN)) <= FINAL_VIEW_TTL_S  # type: ignore[operator]


def test_a_view_is_extended_only_at_its_own_revision(client: redis.Redis, views: ViewCache) -> None:
    put(client, views, view(7), 7)
    client.pexpire(view_key(OWNER, RUN), 5_000)
    assert not views.extend_ttl(OWNER, RUN, 8)
    assert client.pttl(view_key(OWNER, RUN)) <= 5_000  # type: ignore[operator]
    assert views.extend_ttl(OWNER, RUN, 7)
    assert client.pttl(view_key(OWNER, RUN)) > 5_000  # type: ignore[operator]
    client.delete(view_key(OWNER, RUN))
    assert not views.extend_ttl(OWNER, RUN, 7)


def test_a_view_over_a_megabyte_is_not_kept_and_deletes_the_older_one(client: redis.Redis, views: ViewCache) -> None:
    large = view(2, "x" * VIEW_MAX_BYTES)
    put(client, views, view(1), 1)
    put(client, views, large, 2)
    assert views.get(OWNER, RUN) is None
    fill(views, large, 2, final=True)
    assert views.get(OWNER, RUN) is None


def test_an_output_is_kept_for_an_hour(client: redis.Redis, views: ViewCache) -> None:
    pipe = client.pipeline(transaction=False)
    views.put_outputs(pipe, {(OWNER, RUN, "step"): b'{"a":1}', (OWNER, RUN, "other"): b'{"a":2}'})
    pipe.execute()
    assert views.get_output(OWNER, RUN, "step") == b'{"a":1}'
    assert views.get_output(OWNER, RUN, "other") == b'{"a":2}'
    assert views.get_output(OWNER, RUN, "none") is None
    for step in ("step", "other"):
        assert OUTPUT_TTL_S - 2 < client.ttl(output_key(OWNER, RUN, step)) <= OUTPUT_TTL_S  # type: ignore[operator]


@pytest.mark.parametrize("owner", [OWNER, "acme"])
def test_no_output_of_an_erased_run_is_kept_whoever_owns_it(client: redis.Redis, views: ViewCache, owner: str) -> None:
    other = RUN.replace("8", "9")
    client.set(erased_key(RUN), 1)
    pipe = client.pipeline(transaction=False)
    views.put_outputs(pipe, {(owner, RUN, "step"): b"{}", (owner, other, "step"): b"{}"})
    pipe.execute()
    assert views.get_output(owner, RUN, "step") is None
    assert views.get_output(owner, other, "step") == b"{}"


def test_held_polls_are_woken_when_the_change_is_readable_and_not_by_an_older_one(
    client: redis.Redis, views: ViewCache
) -> None:
    with closing(client.pubsub()) as ear:
        ear.subscribe(WAKEUP_CHANNEL)
        assert ear.get_message(timeout=5)["type"] == "subscribe"
        put(client, views, view(9), 9)
        assert ear.get_message(timeout=5)["data"] == RUN.encode()
        assert views.get(OWNER, RUN) == view(9)
        put(client, views, view(8), 8)
        put(client, views, view(10, "x" * VIEW_MAX_BYTES), 10)  # too large to be kept, so it is read from MongoDB
        assert ear.get_message(timeout=5)["data"] == RUN.encode()
        assert views.get(OWNER, RUN) is None
        assert ear.get_message(timeout=0.1) is None


def test_a_view_says_how_long_it_is_still_valid(client: redis.Redis, views: ViewCache) -> None:
    assert views.ttl_s(OWNER, RUN) == 0
    put(client, views, view(1), 1)
    assert 0 < views.ttl_s(OWNER, RUN) <= LIVE_S


def put_first(client: redis.Redis, views: ViewCache, copy: bytes | None, run: str = RUN) -> None:
    pipe = client.pipeline(transaction=False)
    views.put_first(pipe, OWNER, run, view(1), copy)
    pipe.execute()


def test_a_copy_is_kept_until_the_next_view_of_its_run(client: redis.Redis, views: ViewCache) -> None:
    other = f"{RUN[:-1]}0"
    for run in (RUN, other):
        put_first(client, views, run.encode(), run)
    assert sorted(views.copies([RUN, other, "none"])) == sorted([RUN.encode(), other.encode()])
    assert 0 < client.pttl(copy_key(RUN)) <= COPY_TTL_MS
    put(client, views, view(2), 2)
    assert views.copies([RUN, other]) == [other.encode()]
    views.invalidate(client, OWNER, other)
    assert views.copies([RUN, other]) == []


def test_a_large_copy_is_not_kept(client: redis.Redis, views: ViewCache) -> None:
    put_first(client, views, b"x" * (COPY_MAX_BYTES + 1))
    assert (views.get(OWNER, RUN), views.copies([RUN])) == (view(1), [])


@pytest.mark.parametrize(
    ("size", "is_final", "is_carried"),
    [(10, True, True), (10, False, False), (CARRIED_VIEW_MAX_BYTES + 1, True, False)],
)
def test_a_wake_up_carries_a_final_view_of_usual_size(
    client: redis.Redis, views: ViewCache, size: int, *, is_final: bool, is_carried: bool
) -> None:
    body = view(2, "x" * size)
    with closing(client.pubsub()) as subscription:
        subscription.subscribe(WAKEUP_CHANNEL)
        assert subscription.get_message(timeout=5)["type"] == "subscribe"
        put(client, views, body, 2, final=is_final)
        wakeup = subscription.get_message(timeout=5)
    assert wakeup["data"] == (RUN.encode() + b" " + body if is_carried else RUN.encode())
