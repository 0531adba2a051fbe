"""The one clock of all decisions: the store's server time, read now and then and extrapolated by CLOCK_BOOTTIME.

See docs/engine.md, section 3.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from shared.clock import boottime_s
from shared.errors import BucketError

SYNC_RETRY_AFTER_S: Final = 1.0
BACKWARD_STEP_MAX: Final = timedelta(milliseconds=100)


class Clock(Protocol):
    """The port of the clock that decisions use."""

    def now(self) -> datetime:
        """Return the present time, in UTC, to the millisecond."""


class ServerClock:
    """The store's time, read every ``sync_every_s`` seconds and extrapolated by CLOCK_BOOTTIME in between.

    If ``sync_every_s`` is infinite, only the first ``now`` reads it, and the owner of the clock calls ``sync``: so a
    request never waits for the time.

    Wall clocks decide nothing: they step, differ between machines and stop in a suspended laptop.
    """

    def __init__(self, read_time: Callable[[], datetime], sync_every_s: float) -> None:
        self._read_time = read_time
        self._sync_every_s = sync_every_s
        self._lock = threading.Lock()
        self._last_reading: tuple[datetime, float] | None = None
        self._is_invalidated = False
        self._failed_at = -math.inf
        self._floor: datetime | None = None

    def now(self) -> datetime:
        """Return the store's time; raise Unavailable only if the store has never replied."""
        reading = self._last_reading
        if reading is None:
            self.sync()
        elif self._is_invalidated or boottime_s() - reading[1] > self._sync_every_s:
            self._sync_or_back_off()
        return self._extrapolated_now()

    def now_or_none(self) -> datetime | None:
        """Return the extrapolated time without a call to the store; None if it was never read. For hints."""
        return None if self._last_reading is None else self._extrapolated_now()

    def sync(self) -> timedelta:
        """Read the store's time; return its difference from the extrapolated time (zero the first time)."""
        began = boottime_s()
        earliest = self._read_time()
        ended = boottime_s()
        # The store read its clock between the two readings: its time is now between ``earliest`` and ``latest``.
        latest = earliest + timedelta(seconds=ended - began)
        with self._lock:
            extrapolated = None if self._last_reading is None else self._extrapolated_now()
            # A slow reading, as after a process was stopped, is imprecise: the extrapolated time stays unless it lies
            # outside the bounds, and is then moved no further than to the nearer bound.
            middle = earliest + (latest - earliest) / 2
            self._last_reading = (
                middle if extrapolated is None else min(max(self._extrapolate(ended), earliest), latest),
                ended,
            )
            self._floor = None
            self._is_invalidated = False
            if extrapolated is None:
                return timedelta(0)
            jump = self._extrapolated_now() - extrapolated
            # A step back of a few milliseconds comes from the round trip to the store: ``now`` does not go back for it.
            self._floor = extrapolated if -BACKWARD_STEP_MAX < jump < timedelta(0) else None
        return jump

    def _sync_or_back_off(self) -> None:
        # A store that does not reply is called once a second, or each caller in turn would wait for it.
        if boottime_s() - self._failed_at < SYNC_RETRY_AFTER_S:
            return
        try:
            self.sync()
        except BucketError:
            self._failed_at = boottime_s()

    def invalidate(self) -> None:
        """Read the store's time again on the next ``now``; used after a failed call: the primary may have changed."""
        self._is_invalidated = True

    def _extrapolate(self, moment: float) -> datetime:
        if self._last_reading is None:
            raise RuntimeError("the store's clock was never read")
        server_time, read_at = self._last_reading
        return server_time + timedelta(seconds=moment - read_at)

    def _extrapolated_now(self) -> datetime:
        now = self._extrapolate(boottime_s())
        floor = self._floor
        if floor is not None and now < floor:
            return floor
        return now.replace(microsecond=now.microsecond // 1000 * 1000)
