"""Worker presence (liveness): each worker's main process renews an entry in Redis, and the API counts the entries."""

from __future__ import annotations

import threading
from typing import Any, Final

import redis

from shared.live.redis_client import drop_if_demoted

PRESENCE_RENEW_EVERY_S: Final = 5.0
PRESENCE_TTL_S: Final = 15.0
_KEY: Final = "workers"

# By Redis's own time: the entries of machines whose clocks differ must last equally long.
_ANNOUNCE: Final = """
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] + ARGV[2], ARGV[1])
return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1])
"""
_COUNT: Final = "return redis.call('ZCOUNT', KEYS[1], '(' .. redis.call('TIME')[1], '+inf')"


def count_workers(pipe: Any) -> Any:
    """Count the workers that are present: returns the number for a client, appends the command to a pipeline."""
    return pipe.eval(_COUNT, 1, _KEY)


def present_workers(client: Any) -> list[str]:
    """Return the names of the workers that are present, as ``host:pid``."""
    names: list[bytes] = client.zrangebyscore(_KEY, f"({client.time()[0]}", "+inf")
    return [name.decode() for name in names]


class WorkerPresence:
    """Renews the presence of this worker from a thread until it is stopped; if Redis is away it tries again."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._redis = client
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="presence", daemon=True)

    def start(self) -> None:
        """Start the thread, which announces the worker and renews its presence."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and remove the presence."""
        self._stop.set()
        self._thread.join(timeout=2)
        try:
            self._redis.zrem(_KEY, self._name)
        except redis.RedisError as error:
            _log().info("Redis is away: the worker's presence is left to expire", reason=str(error))

    def _renew(self) -> None:
        while True:
            try:
                self._redis.eval(_ANNOUNCE, 1, _KEY, self._name, str(int(PRESENCE_TTL_S)))
            except redis.RedisError as error:
                _log().warning("Redis is away: the worker's presence was not renewed", reason=str(error))
                drop_if_demoted(self._redis, error)
            if self._stop.wait(PRESENCE_RENEW_EVERY_S):
                return


def _log() -> Any:
    import structlog  # here, because the health check of a container, which logs nothing, would be twice as slow

    return structlog.get_logger()
