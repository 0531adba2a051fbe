"""The breaker of a process: the one that all workers share in Redis, or while Redis is away one of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import redis
import structlog

from shared.live.providers import provider_metrics
from shared.live.providers.call_policy import CallPermit, CallPolicy, CallReport, Verdict
from shared.live.providers.circuit_breaker import SharedBreaker
from shared.live.providers.last_answers import Answer, keep_answer, read_answer
from shared.live.redis_client import connect, drop_if_demoted
from worker.gateway.local_breaker import LocalBreaker

REDIS_TIMEOUT_S: Final = 0.25
REDIS_PAUSE_S: Final = 5.0
_CONNECTIONS_MAX: Final = 32

_T = TypeVar("_T")


class BreakerFailover:
    """Asks Redis, and itself if Redis does not reply; after a failure Redis is left alone for 5 s. Never raises."""

    def __init__(self, redis_url: str, policy: CallPolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._redis = connect(redis_url, timeout_s=REDIS_TIMEOUT_S, connections_max=_CONNECTIONS_MAX)
        self._shared = SharedBreaker(self._redis, policy)
        self._local = LocalBreaker(policy)
        self._now = now
        self._away_until = 0.0

    def admit(self, provider: str, *, lease_s: float, is_critical: bool) -> CallPermit:
        """Return whether a call may be made now."""
        permit = self._ask(lambda: self._shared.admit(provider, lease_s=lease_s, is_critical=is_critical))
        return permit or self._local.admit(provider, lease_s=lease_s)

    def open_for_s(self, provider: str) -> float:
        """Return for how long the circuit is open for all workers; 0 if it is not, or Redis is away."""
        return self._ask(lambda: self._shared.open_for_s(provider)) or 0.0

    def record(self, report: CallReport, seconds: float, kind: str) -> Verdict:
        """Learn from an admitted call."""
        return self._ask(lambda: self._shared.record(report, seconds, kind)) or self._local.record(report)

    def count_error(self, provider: str, kind: str) -> None:
        """Count an error that no record of a call has; the count is lost if Redis is away."""
        self._ask(lambda: provider_metrics.count_error(self._redis, provider, kind))

    def keep_answer(self, key: str, answer: Answer) -> None:
        """Keep a good answer, if Redis is there."""
        self._ask(lambda: keep_answer(self._redis, key, answer))

    def read_answer(self, key: str) -> Answer | None:
        """Return the answer that was kept; None if there is none, or Redis is away."""
        return self._ask(lambda: read_answer(self._redis, key))

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def _ask(self, question: Callable[[], _T]) -> _T | None:
        if self._now() < self._away_until:
            return None
        try:
            return question()
        except redis.RedisError as error:
            self._away_until = self._now() + REDIS_PAUSE_S
            structlog.get_logger().warning("Redis is away: the gateway uses its own breaker", reason=str(error))
            drop_if_demoted(self._redis, error)
            return None
