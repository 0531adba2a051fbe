"""A full Redis evicts log lines and keeps room for task messages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
import redis

from shared.domain.execution import PRIORITY_FIRST_OFFER
from shared.live import log_stream
from shared.queue import message
from shared.queue.message import TaskMessage, list_key
from tests.builders import NOON

ROOM_BYTES = 16 * 1024 * 1024


@pytest.fixture
def small_redis(client: redis.Redis) -> Iterator[redis.Redis]:
    """Yield a Redis with little memory that evicts keys with an expiry first, as Bucket's are configured."""
    before: Any = client.config_get("maxmemory*")
    used: Any = client.info("memory")
    client.config_set("maxmemory", used["used_memory"] + ROOM_BYTES)
    client.config_set("maxmemory-policy", "volatile-ttl")
    yield client
    client.config_set("maxmemory", before["maxmemory"])
    client.config_set("maxmemory-policy", before["maxmemory-policy"])


def test_agents_that_flood_the_log_leave_room_for_messages(small_redis: redis.Redis) -> None:
    line = orjson.dumps({"seq": 1, "message": os.urandom(2_000).hex()})
    for _ in range(100):
        pipe = small_redis.pipeline(transaction=False)
        log_stream.append_lines(pipe, "acme", [line] * 100)
        with suppress(redis.OutOfMemoryError):  # as the publisher does: the run continues
            pipe.execute()
    for _ in range(1_000):
        pipe = small_redis.pipeline(transaction=False)
        log_stream.append_lines(pipe, "acme", [line[:200]])
        message.enqueue(pipe, TaskMessage("public", "1763700000_89ce24ad1b2c3d4e", "a", NOON), "default")
        with suppress(redis.OutOfMemoryError):
            pipe.execute()
    assert small_redis.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1_000
