"""Buffers what an agent reports, log lines and progress, until a write includes it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from shared.domain.execution import LOG_LINES_MAX, LogEvent
from shared.store.executions.updates import ProgressReport


@dataclass(slots=True)
class ReportBuffer:
    """Buffers an agent's log lines and progress until the heartbeat or the completing write includes them.

    It keeps only as many lines as an execution does: a flood of lines must not make the completing write too large.
    """

    agent: str
    step: str
    now: Callable[[], datetime]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _events: deque[LogEvent] = field(default_factory=lambda: deque(maxlen=LOG_LINES_MAX))
    _received_count: int = 0
    _percent: int | None = None
    _message: str | None = None

    def line(self, level: str, message: str, data_json: bytes) -> None:
        """Take one log line of the agent."""
        event = LogEvent(
            self.now(), "agent.log", message, level=level, agent=self.agent, step=self.step, data=data_json,
            status="error" if level == "error" else "success",
        )  # fmt: skip
        with self._lock:
            self._received_count += 1  # first: an interrupt in between must not leave the count too low
            self._events.append(event)

    def progress(self, percent: int | None, message: str | None) -> None:
        """Take the progress of the agent."""
        with self._lock:
            self._percent, self._message = percent, message

    def take_report(self) -> ProgressReport:
        """Return what was reported since the last call, and empty the buffer."""
        with self._lock:
            events, dropped = tuple(self._events), self._received_count - len(self._events)
            report = ProgressReport(events, self._percent, self._message, dropped)
            self._events.clear()
            self._received_count, self._percent, self._message = 0, None, None
        return report

    def restore_report(self, report: ProgressReport) -> None:
        """Put back a report that the store did not accept; what came since stays newer."""
        with self._lock:
            newer = tuple(self._events)
            self._events.clear()
            self._events.extend((*report.events, *newer))
            self._received_count += len(report.events) + report.dropped
            self._percent = report.percent if self._percent is None else self._percent
            self._message = report.message if self._message is None else self._message
