"""Redis clients: every wait has a timeout, and no command is retried without the caller."""

from __future__ import annotations

import os
import re
from collections import deque
from functools import partial
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

_CELERY_SPELLING: Final = re.compile(r"(?<=[?&]ssl_cert_reqs=)CERT_(?:REQUIRED|OPTIONAL|NONE)\b")


def connect(url: str, timeout_s: float = 1.0, connections_max: int = 128) -> redis.Redis:
    """Return a client that fails within ``timeout_s`` and never retries a command.

    By default redis-py retries each command ten times if the reply was lost, even LPUSH and INCR.
    """
    ours: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": connections_max,
        "protocol": 2,
    }
    return redis.Redis.from_pool(redis.ConnectionPool(**(ours | connection_options(url))))


def connection_options(url: str) -> dict[str, Any]:
    """Return what a Redis URL says, as arguments of redis-py's connection; ``connection_class`` follows its scheme.

    With ``rediss://`` the certificate is verified unless the URL says ``ssl_cert_reqs=none``; Celery's spelling
    ``CERT_REQUIRED`` is taken too.
    """
    spelled = _CELERY_SPELLING.sub(lambda found: found[0].removeprefix("CERT_").lower(), url)
    parsed: dict[str, Any] = parse_url(spelled)  # type: ignore[no-untyped-call]
    return {"connection_class": redis.Connection, **parsed}


def is_demotion(error: redis.RedisError) -> bool:
    """Return whether ``error`` says that the server has become a read-only replica."""
    # Before Redis 7 the error of a script is not a ReadOnlyError; its text names the code.
    return isinstance(error, redis.ReadOnlyError) or "READONLY" in str(error)


def drop_if_demoted(client: redis.Redis, error: redis.RedisError) -> None:
    """Close the connections of ``client`` that are not in use, if ``error`` says that the server has become a replica.

    The next ones go where the address leads then: an old primary refuses writes and closes no connection.
    """
    if is_demotion(error):
        client.connection_pool.disconnect(inuse_connections=False)


class ConnectionReader:
    """Reads values with connections of its own, as many as there are reads at once.

    The work of a connection pool around each command (locks, events, metrics, a check of the connection) costs a third
    of a GET. Here a broken connection is detected when it is used; the read is then sent again, which does no harm.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        """Connections are opened when they are needed, with the settings of ``pool``."""
        self._new_connection = partial(pool.connection_class, **pool.connection_kwargs)
        self._idle: deque[redis.Connection] = deque()

    def get(self, key: str) -> bytes | None:
        """Return the value of ``key``; None if there is none. Raises RedisError."""
        connection = self._take()
        try:
            try:
                value = _get(connection, key)
            except redis.ConnectionError:  # a timeout is not one
                value = _get(connection, key)
        except redis.RedisError:
            self._idle.append(connection)  # redis-py has closed it; the next read opens it again
            raise
        self._idle.append(connection)
        return value

    def _take(self) -> redis.Connection:
        while True:
            try:
                connection = self._idle.pop()  # the one that was used last
            except IndexError:
                fresh: redis.Connection = self._new_connection()
                return fresh
            if connection.pid == os.getpid():  # not made before a fork: two processes would read each other's replies
                return connection


def _get(connection: redis.Connection, key: str) -> bytes | None:
    connection.send_command("GET", key)  # type: ignore[no-untyped-call]
    value: bytes | None = connection.read_response()
    return value
