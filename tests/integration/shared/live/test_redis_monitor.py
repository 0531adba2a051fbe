"""The Redis monitor takes ten snapshots a second: it notices an outage of Redis, and its end, within half a second."""

from __future__ import annotations

import pytest
import redis

from compose.embedded.managed_process import Child
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.live.redis_monitor import RedisMonitor, RedisSnapshot
from shared.queue.message import list_keys
from tests.pause_aware_timer import PauseAwareTimer
from tests.waiting import wait_until


@pytest.mark.parametrize("way", ["kill", "pause"])
def test_an_outage_is_noticed_within_half_a_second_and_so_is_its_end(own_redis: tuple[Child, str], way: str) -> None:
    child, url = own_redis
    monitor = RedisMonitor(url)
    monitor.start()
    try:
        wait_until(lambda: monitor.last.is_connected, what="Redis is available")
        getattr(child, way)()
        with PauseAwareTimer() as noticed:
            wait_until(lambda: not monitor.last.is_connected, what="the outage is noticed")
        if way == "pause":
            child.resume()
        else:
            child.start()
        child.wait_ready()
        with PauseAwareTimer() as back:
            wait_until(lambda: monitor.last.is_connected, what="Redis is available again")
        assert noticed.seconds < 0.6, "half a second, and a tenth for a busy machine"
        assert back.seconds < 0.6, "as soon"
    finally:
        monitor.stop()


def test_a_snapshot_counts_the_backlog_of_every_list_and_the_workers(client: redis.Redis, redis_url: str) -> None:
    monitor = RedisMonitor(redis_url)
    for queue in QUEUE_NAMES:
        for name in list_keys(queue):
            client.lpush(name, b"message")
    now, _ = client.time()  # type: ignore[misc]
    client.zadd("workers", {"one": now + 10, "two": now + 10, "dead": now - 1})
    assert monitor.take_snapshot() == RedisSnapshot(is_connected=True, backlog=len(QUEUE_NAMES) * 2, workers=2)


def test_an_invalid_value_counts_as_an_outage_and_the_monitor_continues(client: redis.Redis, redis_url: str) -> None:
    client.set(QUEUE_NAMES[0], "a string where a list should be")
    monitor = RedisMonitor(redis_url)
    monitor.start()
    try:
        assert not monitor.last.is_connected
        client.delete(QUEUE_NAMES[0])
        wait_until(lambda: monitor.last.is_connected, what="Redis counts as available again")
    finally:
        monitor.stop()
