"""Reconciler presence: each reconciler says that its passes go on, and whether it leads.

It is renewed only while passes end: a reconciler that hangs must not look alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import redis
import structlog

from shared.clock import boottime_s
from shared.live.presence.presence_entry import RECONCILERS_KEY, TTL_S
from shared.live.redis_client import drop_if_demoted

RENEW_EVERY_S: Final = 5.0
_LOOK_EVERY_S: Final = 1.0

_ANNOUNCE: Final = """
local t = redis.call('TIME')
local heartbeat = t[1] .. string.format('%03d', math.floor(t[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[1], heartbeat .. ' ' .. ARGV[2])
local entries = redis.call('HGETALL', KEYS[1])
for at = 1, #entries, 2 do
  local renewed = tonumber(string.match(entries[at + 1], '^%d+'))
  if not renewed or renewed < (t[1] - ARGV[3]) * 1000 then
    redis.call('HDEL', KEYS[1], entries[at])
  end
end
"""


class ReconcilerPresence:
    """Renews the presence of this reconciler; if Redis is away it tries again."""

    def __init__(
        self, client: redis.Redis, name: str, is_leading: Callable[[], bool], last_pass_at: Callable[[], float]
    ) -> None:
        """``last_pass_at`` returns when the last pass ended, in seconds since boot."""
        self._redis = client
        self._name = name
        self._is_leading = is_leading
        self._last_pass_at = last_pass_at

    def run(self, stop: threading.Event) -> None:
        """Renew it until ``stop`` is set, then remove it; a change of the leader is announced within a second."""
        announced: bool | None = None
        due_at = 0.0
        while not stop.is_set():
            now, is_leading = boottime_s(), self._is_leading()
            if now - self._last_pass_at() < TTL_S and (now >= due_at or is_leading is not announced):
                self._announce(is_leading=is_leading)
                announced, due_at = is_leading, now + RENEW_EVERY_S
            stop.wait(_LOOK_EVERY_S)
        try:
            self._redis.hdel(RECONCILERS_KEY, self._name)
        except redis.RedisError as error:
            structlog.get_logger().info("Redis is away: the reconciler's presence is left to expire", reason=str(error))

    def _announce(self, *, is_leading: bool) -> None:
        try:
            self._redis.eval(_ANNOUNCE, 1, RECONCILERS_KEY, self._name, int(is_leading), TTL_S)
        except redis.RedisError as error:
            structlog.get_logger().warning("Redis is away: the presence was not renewed", reason=str(error))
            drop_if_demoted(self._redis, error)
