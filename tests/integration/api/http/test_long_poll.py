"""Long polls return when the value changes, when their time is over, or at once if nothing could wake them."""

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
from shared.live.redis_client import connect
from shared.live.redis_monitor import RedisMonitor
from shared.live.signals import pubsub
from shared.settings import Settings
from tests.waiting import wait_until

LONG_S = 25.0  # a wait that must not last to its end: the test would be stopped
SOON_S = 10.0


class WatchedRevision:
    """A revision that a long poll checks; it counts the checks."""

    def __init__(self) -> None:
        self.rev = 1
        self.checks = 0

    def check(self, _: bytes | None = None) -> int:
        self.checks += 1
        return self.rev


@pytest.fixture
def watched() -> WatchedRevision:
    return WatchedRevision()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as callers:
        yield callers


@pytest.fixture
def make_poller(redis_url: str) -> Iterator[Callable[..., LongPoller]]:
    pairs: list[tuple[LongPoller, RedisMonitor]] = []

    def make(url: str = redis_url, linger_s: float = pubsub.LINGER_S, **settings: int) -> LongPoller:
        monitor = RedisMonitor(url)
        monitor.start()
        pairs.append((LongPoller(Settings(redis_url=url, **settings), monitor, linger_s), monitor))  # type: ignore[arg-type]
        return pairs[-1][0]

    yield make
    for poller, monitor in pairs:
        poller.release_all()
        monitor.stop()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with closing(connect(redis_url)) as client:
        yield client


def hold_poll(
    poller: LongPoller, watched: WatchedRevision, wait_s: float = LONG_S, topic: str = "a"
) -> LongPollResult[int]:
    return poller.hold(topic, wait_s, watched.check, lambda rev: rev > 1)


def begin_held_poll(
    callers: ThreadPoolExecutor, poller: LongPoller, watched: WatchedRevision, **options: object
) -> Future[LongPollResult[int]]:
    """Begin a long poll and wait until it has registered and checked twice."""
    before = watched.checks
    future = callers.submit(hold_poll, poller, watched, **options)  # type: ignore[arg-type]
    wait_until(lambda: watched.checks >= before + 2, 5, "it has checked twice")
    return future


def test_a_held_poll_is_woken_only_by_its_own_topic(
    make_poller: Callable[..., LongPoller], callers: ThreadPoolExecutor, client: redis.Redis, watched: WatchedRevision
) -> None:
    poller, other = make_poller(), WatchedRevision()
    woken = [begin_held_poll(callers, poller, watched) for _ in range(3)]
    unwoken = begin_held_poll(callers, poller, other, topic="b")
    watched.rev = other.rev = 2
    checks = other.checks
    pubsub.publish_wakeup(client, "a")
    assert [future.result(SOON_S) for future in woken] == [LongPollResult(2, is_granted=True)] * 3
    assert (unwoken.done(), other.checks) == (False, checks)
    pubsub.publish_wakeup(client, "b")
    assert unwoken.result(SOON_S).value == 2


def test_a_wake_up_without_a_change_keeps_the_poll_held(
    make_poller: Callable[..., LongPoller], callers: ThreadPoolExecutor, client: redis.Redis, watched: WatchedRevision
) -> None:
    future = begin_held_poll(callers, make_poller(), watched)
    checks = watched.checks
    pubsub.publish_wakeup(client, "a")
    wait_until(lambda: watched.checks > checks, 5, "it checked")
    assert not future.done()
    watched.rev = 2
    pubsub.publish_wakeup(client, "a")
    assert future.result(SOON_S).value == 2


def test_a_wake_up_hands_over_what_it_carries_once(
    make_poller: Callable[..., LongPoller], callers: ThreadPoolExecutor, client: redis.Redis
) -> None:
    fetched: list[bytes | None] = []

    def fetch(carried: bytes | None) -> int:
        fetched.append(carried)
        return len(fetched)

    future = callers.submit(make_poller().hold, "a", LONG_S, fetch, lambda count: count > 3)
    wait_until(lambda: len(fetched) == 2, 5, "it has registered and fetched")
    client.publish(pubsub.WAKEUP_CHANNEL, b"a a view")
    wait_until(lambda: len(fetched) == 3, 5, "it was woken")
    pubsub.publish_wakeup(client, "a")
    assert future.result(SOON_S).value == 4
    assert fetched == [None, None, b"a view", None]


def test_of_what_is_new_nothing_is_fetched_before_the_registration(
    make_poller: Callable[..., LongPoller], watched: WatchedRevision
) -> None:
    assert make_poller().hold("a", 0.01, watched.check, lambda _: True, is_new=True).is_granted
    assert watched.checks == 1
    refused = make_poller(held_polls=0).hold("a", LONG_S, watched.check, lambda _: True, is_new=True)
    assert refused == LongPollResult(1, is_granted=False)
    assert watched.checks == 2


def test_a_change_returns_at_once_even_without_a_place_or_redis(
    make_poller: Callable[..., LongPoller], tmp_path_factory: pytest.TempPathFactory, watched: WatchedRevision
) -> None:
    watched.rev = 2
    for poller in (make_poller(held_polls=0), make_poller(f"unix://{tmp_path_factory.mktemp('no')}/redis.sock")):
        assert hold_poll(poller, watched) == LongPollResult(2, is_granted=True)
    assert watched.checks == 2


def test_a_change_before_the_registration_is_seen(
    make_poller: Callable[..., LongPoller], watched: WatchedRevision
) -> None:
    def check(_: bytes | None) -> int:
        rev = watched.check()
        watched.rev = 2  # just after the first check, and without a wake-up
        return rev

    assert make_poller().hold("a", LONG_S, check, lambda rev: rev > 1) == LongPollResult(2, is_granted=True)


def test_a_change_counts_as_granted_even_if_nothing_could_wake_the_poll(
    redis_url: str, watched: WatchedRevision
) -> None:
    def check(_: bytes | None) -> int:
        watched.rev += 1
        return watched.check()

    monitor = RedisMonitor(redis_url)
    monitor.start()
    unsubscribed = LongPoller(Settings(redis_url="unix:///nowhere/redis.sock"), monitor)
    try:
        assert unsubscribed.hold("a", LONG_S, check, lambda rev: rev > 2) == LongPollResult(3, is_granted=True)
        assert unsubscribed.hold("a", LONG_S, check, lambda _: False) == LongPollResult(5, is_granted=False)
    finally:
        monitor.stop()


def test_a_long_poll_checks_once_more_when_its_time_is_over(
    make_poller: Callable[..., LongPoller], watched: WatchedRevision
) -> None:
    def check(_: bytes | None) -> int:
        return watched.check() and watched.checks

    poller = make_poller()
    hold_poll(
        poller, WatchedRevision(), wait_s=0.01
    )  # subscribes already, because on a busy machine the subscription may take all of the time
    began = time.monotonic()
    assert poller.hold("a", 0.2, check, lambda _: False) == LongPollResult(3, is_granted=True)
    assert time.monotonic() - began >= 0.2


def test_a_value_that_may_be_stale_is_checked_again(
    make_poller: Callable[..., LongPoller], watched: WatchedRevision
) -> None:
    def is_news(_: int) -> bool:
        return watched.checks > 3

    assert make_poller().hold("a", LONG_S, watched.check, is_news, fresh_for_s=lambda _: 0.0).is_granted


@pytest.mark.parametrize("places", [0, 1, 2])
def test_places_are_bounded(
    make_poller: Callable[..., LongPoller],
    callers: ThreadPoolExecutor,
    client: redis.Redis,
    watched: WatchedRevision,
    places: int,
) -> None:
    poller = make_poller(held_polls=places)
    futures = [begin_held_poll(callers, poller, watched) for _ in range(places)]
    checks = watched.checks
    assert hold_poll(poller, watched) == LongPollResult(1, is_granted=False)
    assert watched.checks == checks + 1
    watched.rev = 2
    pubsub.publish_wakeup(client, "a")
    assert all(future.result(SOON_S).is_granted for future in futures)
    watched.rev = 1
    assert hold_poll(poller, watched, wait_s=0.01).is_granted is (places > 0), "a place is free again"


def test_a_failed_check_is_raised_and_frees_the_place(
    make_poller: Callable[..., LongPoller], watched: WatchedRevision
) -> None:
    poller = make_poller(held_polls=1)

    def check(_: bytes | None) -> int:
        if watched.check() and watched.checks > 1:
            raise RuntimeError("the second check")
        return 1

    with pytest.raises(RuntimeError, match="the second check"):
        poller.hold("a", LONG_S, check, lambda _: False)
    assert hold_poll(poller, watched, wait_s=0.01).is_granted


def test_release_all_ends_every_poll_and_later_polls_are_not_held(
    make_poller: Callable[..., LongPoller], callers: ThreadPoolExecutor, watched: WatchedRevision
) -> None:
    poller = make_poller()
    futures = [begin_held_poll(callers, poller, watched) for _ in range(3)]
    poller.release_all()
    assert [future.result(SOON_S).value for future in futures] == [1, 1, 1]
    assert hold_poll(poller, watched) == LongPollResult(1, is_granted=False)


def test_there_is_a_subscription_only_while_a_poll_waits(
    make_poller: Callable[..., LongPoller], client: redis.Redis, watched: WatchedRevision
) -> None:
    def subscribers() -> int:
        return int(dict(client.pubsub_numsub(pubsub.WAKEUP_CHANNEL))[pubsub.WAKEUP_CHANNEL.encode()])

    poller = make_poller(linger_s=60)
    wait_until(lambda: subscribers() == 0, 10, "those of other tests have ended")
    hold_poll(poller, watched, wait_s=0.1)
    hold_poll(poller, watched, wait_s=0.1)
    time.sleep(0.3)  # no event to wait for: the test checks that nothing happens
    assert subscribers() == 1, "one for both"
    poller._wakeup_listener._linger_s = 0.2
    wait_until(lambda: subscribers() == 0, 5, "no poll waits any more")
    poller._wakeup_listener._linger_s = 60
    hold_poll(poller, watched, wait_s=0.1)
    assert subscribers() == 1


@pytest.mark.parametrize("way", ["kill", "pause"])
def test_polls_check_a_last_time_if_redis_goes_away_and_are_held_again_when_it_is_back(
    own_redis: tuple[Child, str],
    make_poller: Callable[..., LongPoller],
    callers: ThreadPoolExecutor,
    watched: WatchedRevision,
    way: str,
) -> None:
    child, url = own_redis
    poller = make_poller(url)
    futures = [begin_held_poll(callers, poller, watched) for _ in range(2)]
    checks = watched.checks
    getattr(child, way)()
    assert [future.result(SOON_S) for future in futures] == [LongPollResult(1, is_granted=True)] * 2
    assert watched.checks == checks + 2
    assert hold_poll(poller, watched) == LongPollResult(1, is_granted=False)
    if way == "pause":
        child.resume()
    else:
        child.start()
    wait_until(lambda: hold_poll(poller, watched, wait_s=0.05).is_granted, 5, "it is held again")
    future = begin_held_poll(callers, poller, watched)
    watched.rev = 2
    with closing(connect(url)) as client:
        pubsub.publish_wakeup(client, "a")
    assert future.result(SOON_S).value == 2


def test_the_held_time_does_not_count_as_latency_of_bucket(
    make_poller: Callable[..., LongPoller], watched: WatchedRevision
) -> None:
    with flask.Flask(__name__).test_request_context():
        flask.g.started_at_s = started_at_s = time.perf_counter()
        hold_poll(make_poller(), watched, wait_s=0.2)
        assert flask.g.started_at_s - started_at_s > 0.1
