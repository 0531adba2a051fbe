"""The bytes that integrators have stored, for their quotas: one process estimates them, all read them from Redis."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import redis
import structlog

from shared.bootstrap import Services
from shared.errors import BucketError
from shared.limits import EVERY_INTEGRATOR, quota_of

READ_EVERY_S: Final = 2.0
ESTIMATED_EVERY_S: Final = 15.0
ESTIMATE_SHARE_MAX: Final = 1 / 20
"""Of the time: if an estimate takes long, the next one begins later."""
_BYTES_KEY: Final = "quota:stored_bytes"
_TURN_KEY: Final = "quota:stored_bytes:turn"
_KEPT_S: Final = 3_600


class StoredBytes:
    """The latest estimates that this process has read."""

    def __init__(self, services: Services) -> None:
        self._redis = services.redis
        self._usage = services.usage
        self._quotas = services.settings.quotas
        self._estimates: Mapping[str, int] = {}

    @property
    def is_needed(self) -> bool:
        """Whether any integrator has a quota of stored bytes."""
        return any(quota.stored_bytes is not None for quota in self._quotas.values())

    def of(self, integrator: str) -> int:
        """Return the estimate for an integrator; 0 until there is one."""
        return self._estimates.get(integrator, 0)

    def refresh(self) -> None:
        """Estimate anew if it is time to, and no other process does; then read all estimates."""
        try:
            if self._redis.set(_TURN_KEY, "1", nx=True, px=int(ESTIMATED_EVERY_S * 1_000)):
                self._estimate()
            stored: dict[bytes, bytes] = self._redis.hgetall(_BYTES_KEY)  # type: ignore[assignment]
            self._estimates = {name.decode(): int(size) for name, size in stored.items()}
        except redis.RedisError as error:
            structlog.get_logger().debug("stored bytes were not read", reason=str(error))  # its absence is logged once
        except BucketError as error:
            structlog.get_logger().warning("stored bytes were not estimated", reason=error.message)

    def _estimate(self) -> None:
        began_at = time.monotonic()
        names = self._usage.integrators() if EVERY_INTEGRATOR in self._quotas else list(self._quotas)
        for name in names:
            quota = quota_of(self._quotas, name)
            if quota is not None and quota.stored_bytes is not None:
                self._redis.hset(_BYTES_KEY, name, self._usage.estimate_bytes(name))
        pause_s = max(ESTIMATED_EVERY_S, (time.monotonic() - began_at) / ESTIMATE_SHARE_MAX)
        estimated: list[bytes] = self._redis.hkeys(_BYTES_KEY)  # type: ignore[assignment]
        pipe = self._redis.pipeline(transaction=False)
        if gone := set(estimated) - {name.encode() for name in names}:
            pipe.hdel(_BYTES_KEY, *gone)  # they have stored nothing any more, and must not be refused for what they had
        pipe.expire(_BYTES_KEY, _KEPT_S + int(pause_s))
        pipe.pexpire(_TURN_KEY, int(pause_s * 1_000))
        pipe.execute()
