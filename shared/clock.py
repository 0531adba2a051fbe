"""The clock of this machine that nobody sets: seconds since boot, suspended time included (CLOCK_BOOTTIME)."""

from __future__ import annotations

import time


def boottime_s() -> float:
    """Answer the seconds since boot, those of a suspended machine included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
