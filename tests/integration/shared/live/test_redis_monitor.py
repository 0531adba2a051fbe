"""The Redis monitor takes ten snapshots a second: it notices an outage of Redis, and its end, within half a second."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import redis

from compose.embedded.managed_process import Child
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.definitions.unavailability import Unavailability
from shared.live.presence.presence_entry import WorkerPool
from shared.live.presence.worker_presence import WorkerPresence
from shared.live.redis_client import connect
from shared.live.redis_monitor import RedisMonitor, RedisSnapshot
from shared.queue import lost_messages
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


def make_replica(client: redis.Redis, _data: Path) -> None:
    client.replicaof("127.0.0.1", "1")


def fill(client: redis.Redis, _data: Path) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")


def take_rights(client: redis.Redis, _data: Path) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["-@write", "+acl"])


def fail_snapshots(client: redis.Redis, data: Path) -> None:
    client.config_set("save", "3600 1")
    client.set("a change", "that is to be saved")
    data.rmdir()
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="the snapshot has failed")


def heal(client: redis.Redis, data: Path) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"])
    client.replicaof("NO", "ONE")
    client.config_set("maxmemory", "0")
    client.config_set("save", "")
    data.mkdir(exist_ok=True)


@pytest.mark.parametrize("refuse", [make_replica, fill, take_rights, fail_snapshots])
def test_a_redis_that_refuses_writes_counts_as_away(
    own_redis: tuple[Child, str], tmp_path: Path, refuse: Callable[[redis.Redis, Path], None]
) -> None:
    monitor = RedisMonitor(own_redis[1])
    with closing(connect(own_redis[1])) as client:
        assert monitor.take_snapshot().is_connected
        lost_messages.read_oldest_messages(client)
        refuse(client, tmp_path / "redis")
        assert not monitor.take_snapshot().is_connected
        with pytest.raises(redis.RedisError):  # so the reconciler offers no step
            lost_messages.read_oldest_messages(client)
        heal(client, tmp_path / "redis")
        assert monitor.take_snapshot().is_connected


def test_a_snapshot_counts_the_backlog_of_every_list_and_the_workers(client: redis.Redis, redis_url: str) -> None:
    monitor = RedisMonitor(redis_url)
    for queue in QUEUE_NAMES:
        for name in list_keys(queue):
            client.lpush(name, b"message")
    now, _ = client.time()  # type: ignore[misc]
    client.zadd("workers", {"one": now + 10, "two": now + 10, "dead": now - 1})
    pools = (WorkerPool(None, 0, 2),)
    backlog = len(QUEUE_NAMES) * 2
    assert monitor.take_snapshot() == RedisSnapshot(is_connected=True, backlog=backlog, workers=2, pools=pools)


def test_a_snapshot_has_the_agents_that_no_worker_can_run(client: redis.Redis, redis_url: str) -> None:
    monitor = RedisMonitor(redis_url)
    rates = Unavailability("the required setting KEY is not set", lacks_settings=True)
    presences = [WorkerPresence(client, "one:1", {"rates": rates}), WorkerPresence(client, "two:1", {})]
    presences[0].start()
    wait_until(lambda: monitor.take_snapshot().unavailable == {"rates": rates}, what="the worker's report is read")
    presences[1].start()
    wait_until(lambda: monitor.take_snapshot().unavailable == {}, what="another worker can run it")
    for presence in presences:
        presence.stop()


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
