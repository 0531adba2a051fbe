"""Admission control and backpressure: refuses a new run while a store is away or the backlog is too long."""

from __future__ import annotations

from collections.abc import Callable

from api.limits.quotas import QuotaGuard
from shared.errors import Overloaded, Unavailable
from shared.live.redis_monitor import RedisMonitor


class Admission:
    """Decides whether this process may accept a new run now.

    It decides from values in memory; only a quota needs a call to a store, and only now and then.
    """

    def __init__(
        self, backlog_max: int, monitor: RedisMonitor, is_prepared: Callable[[], bool], quotas: QuotaGuard | None
    ) -> None:
        """``is_prepared`` returns whether MongoDB has its indexes: without them no idempotency key is unique."""
        self._backlog_max = backlog_max
        self._monitor = monitor
        self._is_prepared = is_prepared
        self._quotas = quotas

    def check(self, already_queued: int = 0) -> None:
        """Raise Unavailable, Overloaded or QuotaExceeded if a new run should not be accepted now.

        ``already_queued`` is the number of runs of the same request that the measured backlog does not include yet.
        """
        redis = self._monitor.last
        backlog = redis.backlog + already_queued
        if not redis.is_connected:
            raise Unavailable("Redis is away; nothing was stored, send the same request again", retry_after_s=2)
        if backlog >= self._backlog_max:
            raise Overloaded(
                f"{backlog} steps are waiting for a worker; nothing was stored, send the same request again later",
                retry_after_s=10,
            )
        if not self._is_prepared():
            raise Unavailable("MongoDB is not prepared yet; nothing was stored, send the same request again")
        if self._quotas is not None:
            self._quotas.check(already_queued)
