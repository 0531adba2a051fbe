"""Presence of workers: an entry in Redis that expires by Redis's clock, is renewed, and is removed at the end."""

from __future__ import annotations

import redis

from shared.live import worker_presence
from shared.live.worker_presence import PRESENCE_TTL_S, WorkerPresence
from tests.waiting import wait_until


def now_of(client: redis.Redis) -> int:
    seconds: int = client.time()[0]  # type: ignore[index]
    return seconds


def test_a_presence_is_written_counted_and_removed(client: redis.Redis) -> None:
    presence = WorkerPresence(client, "here:1")
    presence.start()
    wait_until(lambda: worker_presence.count_workers(client) == 1, 5, "the presence is there")
    assert client.zscore("workers", "here:1") - now_of(client) <= PRESENCE_TTL_S  # type: ignore[operator]
    presence.stop()
    assert worker_presence.count_workers(client) == 0


def test_a_presence_that_is_not_renewed_expires_and_is_removed_by_another_worker(client: redis.Redis) -> None:
    client.zadd("workers", {"dead:1": now_of(client), "alive:1": now_of(client) + 5})
    assert worker_presence.count_workers(client) == 1
    assert worker_presence.present_workers(client) == ["alive:1"]
    presence = WorkerPresence(client, "here:1")
    presence.start()
    wait_until(lambda: worker_presence.count_workers(client) == 2, 5, "the presence is there")
    assert client.zscore("workers", "dead:1") is None
    presence.stop()


def test_a_missing_redis_does_not_stop_the_presence_thread(absent_redis: redis.Redis) -> None:
    presence = WorkerPresence(absent_redis, "here:1")
    presence.start()
    presence.stop()
