"""Pause-aware timer: measures how long a block took, without the time in which the machine stood still."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

TICK_S: Final = 0.005
LATE_S: Final = 0.02


class PauseAwareTimer:
    """Measures its block. A thread beside it wakes every 5 ms: the time that it slept longer does not count.

    So a bound on ``seconds`` limits the tested code, and not the machine that runs the test.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="stopwatch", daemon=True)
        self._began = self._ended = self._stood_still_s = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended = time.monotonic()
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Return the seconds that the block took while the machine ran."""
        return self._ended - self._began - self._stood_still_s

    def _tick(self) -> None:
        before = self._began
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            late_s = now - before - TICK_S
            self._stood_still_s += late_s if late_s > LATE_S else 0.0
            before = now
