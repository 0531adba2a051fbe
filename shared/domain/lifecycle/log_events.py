"""Builds the log lines of a run: one for each event of the run or of one of its steps."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from shared.domain.execution import Execution, LogEvent, Step

STEP_FAILED: Final = "step.failed"
STEP_RETRYING: Final = "step.retrying"
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def step_event(
    step: Step, now: datetime, event: str, message: str, *, level: str = "info", status: str = "success", **facts: Any
) -> LogEvent:
    """Build a log line about one step; ``data`` holds ``facts``, the attempt and, once known, the duration."""
    payload = {"attempt": step.claims, **facts}
    if step.duration_ms is not None:
        payload["duration_ms"] = step.duration_ms
    data = _encode(payload).encode()
    return LogEvent(now, event, message, level=level, agent=step.agent, step=step.id, status=status, data=data)


def run_event(execution: Execution, now: datetime, event: str, message: str, *, step: str | None = None) -> LogEvent:
    """Build a log line about the whole run; its level is error if the run has an error."""
    level, status = ("info", "success") if execution.error is None else ("error", "error")
    return LogEvent(now, event, message, step=step, level=level, status=status)


def step_started_event(step: Step, now: datetime) -> LogEvent:
    """Build the log line of a claim."""
    return step_event(step, now, "step.started", f"{step.id} started, attempt {step.claims}", status="running")
