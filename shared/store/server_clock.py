"""One clock, the store's: read now and then, carried on between by a clock that nobody sets."""

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
    """Whatever tells the time that decisions go by."""

    def now(self) -> datetime:
        """Answer the moment, in UTC, to the millisecond."""


class ServerClock:
    """The store's time, asked each ``every_s`` seconds and carried on by CLOCK_BOOTTIME.

    With ``every_s`` infinite only the first ``now`` asks, and whoever owns the clock calls ``sync``: so a request
    never waits for the time.

    Wall clocks decide nothing: they step, differ between machines and stand still in a suspended laptop.
    """

    def __init__(self, read_time: Callable[[], datetime], sync_every_s: float) -> None:
        self._ask = read_time
        self._every_s = sync_every_s
        self._lock = threading.Lock()
        self._last_reading: tuple[datetime, float] | None = None
        self._is_invalidated = False
        self._failed_at = -math.inf
        self._floor: datetime | None = None

    def now(self) -> datetime:
        """Answer the store's time; raises Unavailable only where the store has never answered."""
        known = self._last_reading
        if known is None:
            self.sync()
        elif self._is_invalidated or boottime_s() - known[1] > self._every_s:
            self._sync_or_back_off()
        return self._extrapolated_now()

    def now_or_none(self) -> datetime | None:
        """Answer the store's time without asking for it; None where it was never read. For hints."""
        return None if self._last_reading is None else self._extrapolated_now()

    def sync(self) -> timedelta:
        """Ask the store; answer how far it is from where it was carried to (zero the first time)."""
        began = boottime_s()
        told = self._ask()
        ended = boottime_s()
        # The store read its clock somewhere between the two: by now it is between ``told`` and ``latest``.
        latest = told + timedelta(seconds=ended - began)
        with self._lock:
            carried = None if self._last_reading is None else self._extrapolated_now()
            # A look that took long, as of a process that stood still, tells little: what was carried to stands unless
            # it is contradicted, and is moved no further than that.
            middle = told + (latest - told) / 2
            self._last_reading = (
                middle if carried is None else min(max(self._extrapolate(ended), told), latest),
                ended,
            )
            self._floor = None
            self._is_invalidated = False
            if carried is None:
                return timedelta(0)
            jump = self._extrapolated_now() - carried
            # A step of a few milliseconds is only what the way to the store and back took: nobody sees it go back.
            self._floor = carried if -BACKWARD_STEP_MAX < jump < timedelta(0) else None
        return jump

    def _sync_or_back_off(self) -> None:
        # One that does not answer is asked once a second, or each caller in turn would wait for it.
        if boottime_s() - self._failed_at < SYNC_RETRY_AFTER_S:
            return
        try:
            self.sync()
        except BucketError:
            self._failed_at = boottime_s()

    def invalidate(self) -> None:
        """Ask again before the next answer; for after a failed call, when the primary may be another one."""
        self._is_invalidated = True

    def _extrapolate(self, moment: float) -> datetime:
        if self._last_reading is None:
            raise RuntimeError("the store's clock was never read")
        told, read_at = self._last_reading
        return told + timedelta(seconds=moment - read_at)

    def _extrapolated_now(self) -> datetime:
        now = self._extrapolate(boottime_s())
        floor = self._floor
        if floor is not None and now < floor:
            return floor
        return now.replace(microsecond=now.microsecond // 1000 * 1000)
