"""Parking: a thread that ticks beside a step waits without ticks while there is none: an idle child costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Parking:
    """The place where one thread parks; the thread that gives it work calls :meth:`wake` after it has."""

    def __init__(self, has_work: Callable[[], bool], after_ticks: int) -> None:
        """The thread parks after ``after_ticks`` calls of :meth:`tick` in a row without work."""
        self._has_work = has_work
        self._after_ticks = after_ticks
        self._idle_ticks = 0
        self._wake_up = threading.Event()
        self.is_parked = False

    def tick(self) -> None:
        """Count a tick; return once there is work, if there was none for long."""
        self._idle_ticks = 0 if self._has_work() else self._idle_ticks + 1
        if self._idle_ticks < self._after_ticks:
            return
        self._idle_ticks = 0
        self._wake_up.clear()
        self.is_parked = True
        if not self._has_work():  # after the flag: work that comes from here on sees it and sets the event
            self._wake_up.wait()
        self.is_parked = False

    def wake(self) -> None:
        """Let the thread go on if it is parked."""
        if self.is_parked:
            self._wake_up.set()
