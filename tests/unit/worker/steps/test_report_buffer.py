"""The reporter counts log lines correctly, also after an interrupt."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from tests.builders import NOON
from worker.steps.report_buffer import ReportBuffer


class Interrupted(deque[Any]):
    """A buffer whose append is interrupted."""

    def append(self, _line: Any) -> None:
        raise KeyboardInterrupt


def test_the_count_of_dropped_lines_is_never_negative_after_an_interrupt() -> None:
    reporter = ReportBuffer("echo", "echo", lambda: NOON)
    reporter._events = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        reporter.line("info", "half", b"{}")
    assert reporter.take_report().dropped == 1
    assert reporter.take_report().dropped == 0
