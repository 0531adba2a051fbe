"""Bounds how many events of one kind are stored in a minute: the rest is counted, and told by one event at its end.

So neither a stranger with wrong keys nor a caller in a loop can fill the disk. Each process counts for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from shared.domain.access.audit_event import AuditEvent

WINDOW_S: Final = 60.0
KINDS_MAX: Final = 5_000
"""Further kinds within one minute, such as addresses, share one count."""


@dataclass(slots=True)
class _Window:
    ends_at_s: float
    stored: int = 0
    counted: int = 0
    last: AuditEvent | None = None


class EventLimiter:
    """The counts of one process; ``clock_s`` returns seconds that only grow."""

    def __init__(self, stored_max: int, clock_s: Callable[[], float], kinds_max: int = KINDS_MAX) -> None:
        self._stored_max = stored_max
        self._clock_s = clock_s
        self._kinds_max = kinds_max
        self._lock = threading.Lock()
        self._windows: dict[Hashable, _Window] = {}

    def admits(self, kind: Hashable, event: AuditEvent) -> bool:
        """Return whether to store this event of ``kind`` now; if not, it is counted."""
        now_s = self._clock_s()
        with self._lock:
            window = self._windows.get(kind)
            if window is None and len(self._windows) >= self._kinds_max:
                # Of many kinds at once: nobody in particular.
                kind = event.action
                event = replace(event, subject="several", key_id=None, address=None, object=None, request_id=None)
                window = self._windows.get(kind)
            if window is None:
                window = self._windows[kind] = _Window(now_s + WINDOW_S)
            if window.stored < self._stored_max:
                window.stored += 1
                return True
            window.counted += 1
            window.last = event
            return False

    def take_ended(self) -> Sequence[AuditEvent]:
        """Return an event for each window that has ended and in which events were only counted, with how many."""
        now_s = self._clock_s()
        with self._lock:
            ended = [kind for kind, window in self._windows.items() if window.ends_at_s <= now_s]
            windows = [self._windows.pop(kind) for kind in ended]
        return [replace(each.last, repeated=each.counted) for each in windows if each.last is not None]
