"""Remembers, in this process, when each polled run may be polled again: who comes no earlier polls for nothing.

A caller's polls of one run reach any of the processes, so each process sees some of them; if all are as far apart as
their hints say, so are those that one process sees. So none of them is ever taken for an early one, though no process
asks another. A caller that polls earlier gets at most one poll for nothing per hint, run and process.
"""

from __future__ import annotations

import math
from typing import Final

WINDOW_S: Final = 600.0
"""A poll that finds a run that ended less than this ago costs nothing the first time."""
REMEMBERED_MAX: Final = 25_000
EARLY_SHARE: Final = 0.9
"""Of a hint: clocks run at different speeds, and a caller may cut the last digits of a duration."""


class HintMemory:
    """The moments from which on callers were asked to poll again; the older half is dropped as a whole."""

    def __init__(self, remembered_max: int = REMEMBERED_MAX, window_s: float = WINDOW_S) -> None:
        self._max = remembered_max
        self._window_s = window_s
        self._recent: dict[int, float] = {}
        self._older: dict[int, float] = {}
        self._began_at_s = -math.inf

    def due_at_s(self, key: int) -> float | None:
        """Return when the caller was asked to come again; infinity if it has seen the end, None if nothing is known."""
        due_at_s = self._recent.get(key)
        return self._older.get(key) if due_at_s is None else due_at_s

    def remember(self, key: int, came_at_s: float, poll_after_ms: int | None) -> None:
        """Remember the hint of a reply to a request that came at ``came_at_s``; None: there is nothing more to poll.

        A request that was held has waited already, so the hint counts from when it came.
        """
        if len(self._recent) >= self._max or came_at_s - self._began_at_s > self._window_s:
            self._older, self._recent, self._began_at_s = self._recent, {}, came_at_s
        hint_s = math.inf if poll_after_ms is None else poll_after_ms * EARLY_SHARE / 1_000
        self._recent[key] = came_at_s + hint_s
