"""What an agent reports is counted truthfully, whenever it is interrupted."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from tests.builders import NOON
from worker.steps.reporter import StepReporter


class Interrupted(deque[Any]):
    """A buffer in whose append the step is interrupted."""

    def append(self, _line: Any) -> None:
        raise KeyboardInterrupt


def test_a_line_that_was_interrupted_is_never_counted_as_less_than_none() -> None:
    reporter = StepReporter("echo", "echo", lambda: NOON)
    reporter._events = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        reporter.line("info", "half", b"{}")
    assert reporter.take_report().dropped == 1
    assert reporter.take_report().dropped == 0
