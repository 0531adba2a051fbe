"""A worker's mark lasts by Redis's own time, is renewed, and goes with it."""

from __future__ import annotations

import redis

from shared.live import worker_presence
from shared.live.worker_presence import PRESENCE_TTL_S, WorkerPresence
from tests.waiting import wait_until


def now_of(client: redis.Redis) -> int:
    seconds: int = client.time()[0]  # type: ignore[index]
    return seconds


def test_a_mark_is_left_counted_and_taken_away(client: redis.Redis) -> None:
    mark = WorkerPresence(client, "here:1")
    mark.start()
    wait_until(lambda: worker_presence.count_workers(client) == 1, 5, "the mark is there")
    assert client.zscore("workers", "here:1") - now_of(client) <= PRESENCE_TTL_S  # type: ignore[operator]
    mark.stop()
    assert worker_presence.count_workers(client) == 0


def test_a_mark_that_nobody_renews_runs_out_and_is_swept_by_another(client: redis.Redis) -> None:
    client.zadd("workers", {"dead:1": now_of(client), "alive:1": now_of(client) + 5})
    assert worker_presence.count_workers(client) == 1
    mark = WorkerPresence(client, "here:1")
    mark.start()
    wait_until(lambda: worker_presence.count_workers(client) == 2, 5, "the mark is there")
    assert client.zscore("workers", "dead:1") is None
    mark.stop()


def test_a_redis_that_is_away_ends_no_mark(nobody: redis.Redis) -> None:
    mark = WorkerPresence(nobody, "here:1")
    mark.start()
    mark.stop()
