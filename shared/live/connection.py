"""How Bucket speaks to Redis: every wait bounded, nothing repeated behind the caller's back."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url: str, timeout_s: float = 1.0, connections_max: int = 128) -> redis.Redis:
    """Answer a client that fails within ``timeout_s`` and never repeats a command.

    redis-py repeats each command ten times unless told otherwise, LPUSH and INCR too, whose answer was lost.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        max_connections=connections_max,
        protocol=2,
    )
