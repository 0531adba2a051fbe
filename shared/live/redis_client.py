"""How Bucket speaks to Redis: every wait bounded, nothing repeated behind the caller's back."""

from __future__ import annotations

import os
import threading
from functools import partial

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url: str, timeout_s: float = 1.0, connections_max: int = 128) -> redis.Redis:
    """Return a client that fails within ``timeout_s`` and never repeats a command.

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


class ThreadLocalReader(threading.local):
    """Reads values, for each thread on a connection of its own.

    What a pool does around each command (locks, events, figures, a look whether the line still stands) costs a third of
    a GET. Here a line that fell is found when it is used, and as reading twice does no harm the read is sent again.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        """Once in each thread that reads; the connection is made when it is first needed."""
        self._make = partial(pool.connection_class, **pool.connection_kwargs)
        self._connection: redis.Connection = self._make()

    def get(self, key: str) -> bytes | None:
        """Answer what lies under ``key``; None for nothing. Raises RedisError."""
        if self._connection.pid != os.getpid():  # of before a fork: two would hear each other's answers
            self._connection = self._make()
        try:
            return self._get(key)
        except redis.ConnectionError:  # which a timeout is not
            return self._get(key)

    def _get(self, key: str) -> bytes | None:
        self._connection.send_command("GET", key)  # type: ignore[no-untyped-call]
        found: bytes | None = self._connection.read_response()
        return found
