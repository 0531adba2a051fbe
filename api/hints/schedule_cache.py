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

from api.hints.poll_schedule import Timetable, timetable_of
from shared.bootstrap import Services
from shared.clock import since_boot
from shared.live import duration_stats

UNKNOWN: Final = timetable_of(())
READ_AGAIN_S: Final = 2.0
READ_AGAIN_S_A_RUN: Final = 0.1
FORGOTTEN_S: Final = 120.0
REMEMBERED_MAX: Final = 1_000
READ_AT_ONCE: Final = 5


@dataclass(slots=True)
class _Known:
    """What is remembered under one key; ``read_at`` and ``asked_at`` are seconds since boot."""

    asked_at: float
    read_at: float = -math.inf
    sample: Sequence[float] = ()
    timetable: Timetable = UNKNOWN

    @property
    def read_again_at(self) -> float:
        """When to read it again: the more is known, the less one run changes."""
        return self.read_at + READ_AGAIN_S + self.timetable.runs * READ_AGAIN_S_A_RUN


class Expectations:
    """Timetables by the keys of :mod:`shared.live.duration_stats`."""

    def __init__(
        self, services: Services, now: Callable[[], float] = since_boot, remembered_max: int = REMEMBERED_MAX
    ) -> None:
        """``now`` tells the seconds since boot."""
        self._services = services
        self._now = now
        self._remembered_max = remembered_max
        self._known: dict[str, _Known] = {}

    def of(self, key: str) -> Timetable:
        """Answer what is known under ``key`` by now; UNKNOWN where that is nothing, and it will be read."""
        now = self._now()
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self._remembered_max:
                return UNKNOWN
            known = self._known.setdefault(key, _Known(now))
        known.asked_at = now
        return known.timetable

    def refresh(self) -> None:
        """Read a few of the keys that were asked for and are not known, or not lately. Raises no error of Redis."""
        now = self._now()
        for key in [key for key, known in list(self._known.items()) if now - known.asked_at > FORGOTTEN_S]:
            del self._known[key]
        due = [(known.read_at, key) for key, known in list(self._known.items()) if now >= known.read_again_at]
        keys = [key for _, key in sorted(due)[:READ_AT_ONCE]]
        if not keys:
            return
        try:
            found = duration_stats.read(self._services.redis, keys)
        except redis.RedisError as away:
            structlog.get_logger().info("how long runs take was not read", reason=str(away))
            return
        for key in keys:
            self._take_in(self._known.get(key), found[key], now)

    @staticmethod
    def _take_in(known: _Known | None, sample: Sequence[float], now: float) -> None:
        if known is None:
            return
        known.read_at = now
        if sample and sample != known.sample:  # what Redis has forgotten since is still known here
            known.sample, known.timetable = sample, timetable_of(sample)
