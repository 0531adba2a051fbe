"""One API process's memory of how long runs take, as timetables: no poll ever waits for them.

A poll only asks for what is remembered; what it lacks is read from Redis soon after, in the keeper's thread. After
Redis was flushed the durations are learnt again from new runs. What nobody asks for any more is forgotten.
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
    """What is remembered under one key; ``read_at`` and ``asked_at`` are seconds since boot."""

    last_used_at: float
    read_at: float = -math.inf
    durations_s: Sequence[float] = ()
    schedule: PollSchedule = PRIOR_SCHEDULE

    @property
    def refresh_at(self) -> float:
        """When to read it again: the more is known, the less one run changes."""
        return self.read_at + REFRESH_BASE_S + self.schedule.sample_size * REFRESH_PER_RUN_S


class DurationCache:
    """Timetables by the keys of :mod:`shared.live.duration_stats`."""

    def __init__(
        self, services: Services, now: Callable[[], float] = boottime_s, entries_max: int = ENTRIES_MAX
    ) -> None:
        """``now`` tells the seconds since boot."""
        self._services = services
        self._now = now
        self._entries_max = entries_max
        self._entries: dict[str, _CacheEntry] = {}

    def get(self, key: str) -> PollSchedule:
        """Answer what is known under ``key`` by now; UNKNOWN where that is nothing, and it will be read."""
        now = self._now()
        known = self._entries.get(key)
        if known is None:
            if len(self._entries) >= self._entries_max:
                return PRIOR_SCHEDULE
            known = self._entries.setdefault(key, _CacheEntry(now))
        known.last_used_at = now
        return known.schedule

    def refresh(self) -> None:
        """Read a few of the keys that were asked for and are not known, or not lately. Raises no error of Redis."""
        now = self._now()
        for key in [key for key, known in list(self._entries.items()) if now - known.last_used_at > UNUSED_TTL_S]:
            del self._entries[key]
        due = [(known.read_at, key) for key, known in list(self._entries.items()) if now >= known.refresh_at]
        keys = [key for _, key in sorted(due)[:REFRESH_BATCH_SIZE]]
        if not keys:
            return
        try:
            found = duration_stats.read_samples(self._services.redis, keys)
        except redis.RedisError as away:
            structlog.get_logger().info("how long runs take was not read", reason=str(away))
            return
        for key in keys:
            self._update_entry(self._entries.get(key), found[key], now)

    @staticmethod
    def _update_entry(entry: _CacheEntry | None, sample: Sequence[float], now: float) -> None:
        if entry is None:
            return
        entry.read_at = now
        if sample and sample != entry.durations_s:  # what Redis has forgotten since is still known here
            entry.durations_s, entry.schedule = sample, build_schedule(sample)
