"""Cache of poll schedules in one API process, refreshed in the background: no poll ever waits for one.

A poll reads only the cache; a missing key is read from Redis soon after, in a background thread. If Redis was flushed,
the durations are learned again from new runs. Entries that are not used any more are removed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import redis
import structlog

from api.hints.poll_schedule import PollSchedule, build_schedule
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.live import duration_stats

PRIOR_SCHEDULE: Final = build_schedule(())
REFRESH_BASE_S: Final = 2.0
REFRESH_PER_RUN_S: Final = 0.1
UNUSED_TTL_S: Final = 120.0
ENTRIES_MAX: Final = 1_000
REFRESH_BATCH_SIZE: Final = 5


@dataclass(slots=True)
class _CacheEntry:
    """The cached schedule of one key; ``read_at`` and ``last_used_at`` are in seconds since boot."""

    last_used_at: float
    read_at: float = -math.inf
    durations_s: Sequence[float] = ()
    schedule: PollSchedule = PRIOR_SCHEDULE

    @property
    def refresh_at(self) -> float:
        """When to read it again: the larger the sample, the less one more run changes it."""
        return self.read_at + REFRESH_BASE_S + self.schedule.sample_size * REFRESH_PER_RUN_S


class DurationCache:
    """Poll schedules by the keys of :mod:`shared.live.duration_stats`."""

    def __init__(
        self, services: Services, now: Callable[[], float] = boottime_s, entries_max: int = ENTRIES_MAX
    ) -> None:
        """``now`` returns the seconds since boot."""
        self._services = services
        self._now = now
        self._entries_max = entries_max
        self._entries: dict[str, _CacheEntry] = {}

    def get(self, key: str) -> PollSchedule:
        """Return the cached schedule of ``key``; if there is none yet, return PRIOR_SCHEDULE and read it later."""
        now = self._now()
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= self._entries_max:
                return PRIOR_SCHEDULE
            entry = self._entries.setdefault(key, _CacheEntry(now))
        entry.last_used_at = now
        return entry.schedule

    def refresh(self) -> None:
        """Read a few of the used keys that are missing or out of date, and drop unused ones; raises no Redis error."""
        now = self._now()
        for key in [key for key, entry in list(self._entries.items()) if now - entry.last_used_at > UNUSED_TTL_S]:
            del self._entries[key]
        due = [(entry.read_at, key) for key, entry in list(self._entries.items()) if now >= entry.refresh_at]
        keys = [key for _, key in sorted(due)[:REFRESH_BATCH_SIZE]]
        if not keys:
            return
        try:
            samples = duration_stats.read_samples(self._services.redis, keys)
        except redis.RedisError as error:
            structlog.get_logger().info("the durations of runs could not be read", reason=str(error))
            return
        for key in keys:
            entry, sample = self._entries[key], samples[key]  # only this method removes entries
            entry.read_at = now
            if sample and sample != entry.durations_s:  # an empty one (Redis was flushed) does not replace a known one
                entry.durations_s, entry.schedule = sample, build_schedule(sample)
