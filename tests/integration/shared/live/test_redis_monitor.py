"""Ten looks a second: an outage of Redis is noticed within half a second, and its end as soon."""

from __future__ import annotations

import pytest
import redis

from compose.embedded.managed_process import Child
from shared.live.redis_monitor import RedisMonitor, RedisSnapshot
from shared.queue.message import QUEUES, list_keys
from tests.pause_aware_timer import Stopwatch
from tests.waiting import wait_until


@pytest.mark.parametrize("way", ["kill", "pause"])
def test_an_outage_is_noticed_within_half_a_second_and_so_is_its_end(own_redis: tuple[Child, str], way: str) -> None:
    child, url = own_redis
    pulse = RedisMonitor(url)
    pulse.start()
    try:
        wait_until(lambda: pulse.last.is_connected, what="it is there")
        getattr(child, way)()
        with Stopwatch() as noticed:
            wait_until(lambda: not pulse.last.is_connected, what="it is noticed")
        if way == "pause":
            child.resume()
        else:
            child.start()
        child.wait_ready()
        with Stopwatch() as back:
            wait_until(lambda: pulse.last.is_connected, what="it is back")
        assert noticed.seconds < 0.6, "half a second, and a tenth for a busy machine"
        assert back.seconds < 0.6, "as soon"
    finally:
        pulse.stop()


def test_a_pulse_counts_what_waits_in_every_list_and_who_works(client: redis.Redis, redis_url: str) -> None:
    pulse = RedisMonitor(redis_url)
    for queue in QUEUES:
        for name in list_keys(queue):
            client.lpush(name, b"bell")
    now, _ = client.time()  # type: ignore[misc]
    client.zadd("workers", {"one": now + 10, "two": now + 10, "dead": now - 1})
    assert pulse.take_snapshot() == RedisSnapshot(is_connected=True, backlog=len(QUEUES) * 2, workers=2)


def test_a_pulse_that_finds_nonsense_sees_no_redis_and_goes_on(client: redis.Redis, redis_url: str) -> None:
    client.set(QUEUES[0], "a string where a list should be")
    pulse = RedisMonitor(redis_url)
    pulse.start()
    try:
        assert not pulse.last.is_connected
        client.delete(QUEUES[0])
        wait_until(lambda: pulse.last.is_connected, what="it is seen again")
    finally:
        pulse.stop()
