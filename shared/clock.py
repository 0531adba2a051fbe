"""Monotonic clock of this machine: seconds since boot, including suspended time (CLOCK_BOOTTIME)."""

from __future__ import annotations

import time


def boottime_s() -> float:
    """Return the seconds since boot, including the time the machine was suspended; it never goes back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
