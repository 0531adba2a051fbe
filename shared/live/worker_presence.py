"""Counts the workers by the mark that each main process renews in Redis."""

from __future__ import annotations

import threading
from typing import Any, Final

import redis
import structlog

PRESENCE_RENEW_EVERY_S: Final = 5.0
PRESENCE_TTL_S: Final = 15.0
_KEY: Final = "workers"

# By Redis's own time: the marks of machines whose clocks differ must last equally long.
_ANNOUNCE: Final = """
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] + ARGV[2], ARGV[1])
return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1])
"""
_COUNT: Final = "return redis.call('ZCOUNT', KEYS[1], '(' .. redis.call('TIME')[1], '+inf')"


def count_workers(pipe: Any) -> Any:
    """Ask for the number of workers whose mark lasts; appends to a pipeline, answers on a client."""
    return pipe.eval(_COUNT, 1, _KEY)


class WorkerPresence:
    """Renews this worker's mark from a thread, until it is told to stop; a lost Redis is tried again."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._redis = client
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="worker-mark", daemon=True)

    def start(self) -> None:
        """Leave the mark, and go on renewing it."""
        self._thread.start()

    def stop(self) -> None:
        """Take the mark away."""
        self._stop.set()
        self._thread.join(timeout=2)
        try:
            self._redis.zrem(_KEY, self._name)
        except redis.RedisError as away:
            structlog.get_logger().info("the worker's mark was left to run out", reason=str(away))

    def _renew(self) -> None:
        while True:
            try:
                self._redis.eval(_ANNOUNCE, 1, _KEY, self._name, str(int(PRESENCE_TTL_S)))
            except redis.RedisError as away:
                structlog.get_logger().warning("Redis does not take the worker's mark", reason=str(away))
            if self._stop.wait(PRESENCE_RENEW_EVERY_S):
                return
