"""A held request is answered by the change itself, at the end of its time, or as soon as nothing would wake it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import flask
import pytest
import redis

from api.http.long_poll import LongPoller, LongPollResult
from compose.embedded.managed_process import Child
from shared.live import pubsub
from shared.live.redis_client import connect
from shared.live.redis_monitor import RedisMonitor
from shared.settings import Settings
from tests.waiting import wait_until

LONG_S = 25.0  # of a wait that must not be waited for: the test would be stopped
SOON_S = 10.0


class Thing:
    """Something that is looked at."""

    def __init__(self) -> None:
        self.rev = 1
        self.looks = 0

    def look(self) -> int:
        self.looks += 1
        return self.rev


@pytest.fixture
def thing() -> Thing:
    return Thing()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as callers:
        yield callers


@pytest.fixture
def make_holder(redis_url: str) -> Iterator[Callable[..., LongPoller]]:
    made: list[tuple[LongPoller, RedisMonitor]] = []

    def make(url: str = redis_url, linger_s: float = pubsub.LINGER_S, **settings: int) -> LongPoller:
        pulse = RedisMonitor(url)
        pulse.start()
        made.append((LongPoller(Settings(redis_url=url, **settings), pulse, linger_s), pulse))  # type: ignore[arg-type]
        return made[-1][0]

    yield make
    for holder, pulse in made:
        holder.release_all()
        pulse.stop()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with closing(connect(redis_url)) as client:
        yield client


def hold(holder: LongPoller, thing: Thing, wait_s: float = LONG_S, topic: str = "a") -> LongPollResult[int]:
    return holder.hold(topic, wait_s, thing.look, lambda rev: rev > 1)


def held(callers: ThreadPoolExecutor, holder: LongPoller, thing: Thing, **more: object) -> Future[LongPollResult[int]]:
    """Begin to hold, and wait until it waits."""
    before = thing.looks
    future = callers.submit(hold, holder, thing, **more)  # type: ignore[arg-type]
    wait_until(lambda: thing.looks >= before + 2, 5, "it has looked and looked again")
    return future


def test_one_that_is_held_is_woken_by_its_topic_and_by_no_other(
    make_holder: Callable[..., LongPoller], callers: ThreadPoolExecutor, client: redis.Redis, thing: Thing
) -> None:
    holder, other = make_holder(), Thing()
    woken = [held(callers, holder, thing) for _ in range(3)]
    left = held(callers, holder, other, topic="b")
    thing.rev = other.rev = 2
    looks = other.looks
    pubsub.publish_wakeup(client, "a")
    assert [future.result(SOON_S) for future in woken] == [LongPollResult(2, is_granted=True)] * 3
    assert (left.done(), other.looks) == (False, looks)
    pubsub.publish_wakeup(client, "b")
    assert left.result(SOON_S).value == 2


def test_a_wake_up_without_news_holds_on(
    make_holder: Callable[..., LongPoller], callers: ThreadPoolExecutor, client: redis.Redis, thing: Thing
) -> None:
    future = held(callers, make_holder(), thing)
    looks = thing.looks
    pubsub.publish_wakeup(client, "a")
    wait_until(lambda: thing.looks > looks, 5, "it looked")
    assert not future.done()
    thing.rev = 2
    pubsub.publish_wakeup(client, "a")
    assert future.result(SOON_S).value == 2


def test_news_are_answered_at_once_without_a_place_or_redis(
    make_holder: Callable[..., LongPoller], tmp_path_factory: pytest.TempPathFactory, thing: Thing
) -> None:
    thing.rev = 2
    for holder in (make_holder(held_polls=0), make_holder(f"unix://{tmp_path_factory.mktemp('no')}/redis.sock")):
        assert hold(holder, thing) == LongPollResult(2, is_granted=True)
    assert thing.looks == 2


def test_what_changes_before_one_is_registered_is_seen(make_holder: Callable[..., LongPoller], thing: Thing) -> None:
    def look() -> int:
        seen = thing.look()
        thing.rev = 2  # just after the first look, and nobody tells
        return seen

    assert make_holder().hold("a", LONG_S, look, lambda rev: rev > 1) == LongPollResult(2, is_granted=True)


def test_news_are_granted_even_where_nothing_would_have_woken_it(redis_url: str, thing: Thing) -> None:
    def look() -> int:
        thing.rev += 1
        return thing.look()

    pulse = RedisMonitor(redis_url)
    pulse.start()
    deaf = LongPoller(Settings(redis_url="unix:///nowhere/redis.sock"), pulse)
    try:
        assert deaf.hold("a", LONG_S, look, lambda rev: rev > 2) == LongPollResult(3, is_granted=True)
        assert deaf.hold("a", LONG_S, look, lambda _: False) == LongPollResult(5, is_granted=False)
    finally:
        pulse.stop()


def test_at_the_end_of_its_time_it_looks_once_more(make_holder: Callable[..., LongPoller], thing: Thing) -> None:
    def look() -> int:
        return thing.look() and thing.looks

    holder = make_holder()
    hold(holder, Thing(), wait_s=0.01)  # it hears from here on: to begin may take a busy machine all of the time
    began = time.monotonic()
    assert holder.hold("a", 0.2, look, lambda _: False) == LongPollResult(3, is_granted=True)
    assert time.monotonic() - began >= 0.2


def test_what_may_be_out_of_date_is_looked_at_again(make_holder: Callable[..., LongPoller], thing: Thing) -> None:
    def is_news(_: int) -> bool:
        return thing.looks > 3

    assert make_holder().hold("a", LONG_S, thing.look, is_news, fresh_for_s=lambda _: 0.0).is_granted


@pytest.mark.parametrize("bound", [(16, 2, 2), (4, 8, 2), (1, 8, 0), (16, 0, 0)])
def test_places_are_bounded_and_leave_half_of_the_threads(
    make_holder: Callable[..., LongPoller],
    callers: ThreadPoolExecutor,
    client: redis.Redis,
    thing: Thing,
    bound: tuple[int, int, int],
) -> None:
    threads, told, places_there = bound
    holder = make_holder(held_polls=told, api_threads=threads)
    futures = [held(callers, holder, thing) for _ in range(places_there)]
    looks = thing.looks
    assert hold(holder, thing) == LongPollResult(1, is_granted=False)
    assert thing.looks == looks + 1
    thing.rev = 2
    pubsub.publish_wakeup(client, "a")
    assert all(future.result(SOON_S).is_granted for future in futures)
    thing.rev = 1
    assert hold(holder, thing, wait_s=0.01).is_granted is (places_there > 0), "a place is free again"


def test_a_look_that_fails_is_told_and_frees_the_place(make_holder: Callable[..., LongPoller], thing: Thing) -> None:
    holder = make_holder(held_polls=1)

    def look() -> int:
        if thing.look() and thing.looks > 1:
            raise RuntimeError("the second look")
        return 1

    with pytest.raises(RuntimeError, match="the second look"):
        holder.hold("a", LONG_S, look, lambda _: False)
    assert hold(holder, thing, wait_s=0.01).is_granted


def test_all_are_let_go_and_nobody_is_held_after_that(
    make_holder: Callable[..., LongPoller], callers: ThreadPoolExecutor, thing: Thing
) -> None:
    holder = make_holder()
    futures = [held(callers, holder, thing) for _ in range(3)]
    holder.release_all()
    assert [future.result(SOON_S).value for future in futures] == [1, 1, 1]
    assert hold(holder, thing) == LongPollResult(1, is_granted=False)


def test_there_is_a_subscription_only_while_somebody_waits(
    make_holder: Callable[..., LongPoller], client: redis.Redis, thing: Thing
) -> None:
    def ears() -> int:
        return int(dict(client.pubsub_numsub(pubsub.WAKEUP_CHANNEL))[pubsub.WAKEUP_CHANNEL.encode()])

    holder = make_holder(linger_s=60)
    wait_until(lambda: ears() == 0, 10, "those of other tests have ended")
    hold(holder, thing, wait_s=0.1)
    hold(holder, thing, wait_s=0.1)
    time.sleep(0.3)  # the one thing that cannot be waited for: that nothing happens
    assert ears() == 1, "one for both"
    holder._wakeup_listener._linger_s = 0.2
    wait_until(lambda: ears() == 0, 5, "nobody waits any more")
    holder._wakeup_listener._linger_s = 60
    hold(holder, thing, wait_s=0.1)
    assert ears() == 1


@pytest.mark.parametrize("way", ["kill", "pause"])
def test_where_redis_goes_all_look_a_last_time_and_where_it_comes_back_they_are_held_again(
    own_redis: tuple[Child, str],
    make_holder: Callable[..., LongPoller],
    callers: ThreadPoolExecutor,
    thing: Thing,
    way: str,
) -> None:
    child, url = own_redis
    holder = make_holder(url)
    futures = [held(callers, holder, thing) for _ in range(2)]
    looks = thing.looks
    getattr(child, way)()
    assert [future.result(SOON_S) for future in futures] == [LongPollResult(1, is_granted=True)] * 2
    assert thing.looks == looks + 2
    assert hold(holder, thing) == LongPollResult(1, is_granted=False)
    if way == "pause":
        child.resume()
    else:
        child.start()
    wait_until(lambda: hold(holder, thing, wait_s=0.05).is_granted, 5, "it is held again")
    future = held(callers, holder, thing)
    thing.rev = 2
    with closing(connect(url)) as client:
        pubsub.publish_wakeup(client, "a")
    assert future.result(SOON_S).value == 2


def test_the_time_that_a_request_is_held_does_not_count_as_bucket_s(
    make_holder: Callable[..., LongPoller], thing: Thing
) -> None:
    with flask.Flask(__name__).test_request_context():
        flask.g.begun = begun = time.perf_counter()
        hold(make_holder(), thing, wait_s=0.2)
        assert flask.g.begun - begun > 0.1
