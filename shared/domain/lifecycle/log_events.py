"""The log lines that tell of what happened to a run and its steps."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from shared.domain.execution import Execution, LogEvent, Step

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def step_event(
    step: Step, now: datetime, event: str, message: str, *, level: str = "info", status: str = "success", **facts: Any
) -> LogEvent:
    """Answer a line about one step; ``facts`` and its attempt go into its data."""
    told = {"attempt": step.claims, **facts}
    if step.duration_ms is not None:
        told["duration_ms"] = step.duration_ms
    data = _encode(told).encode()
    return LogEvent(now, event, message, level=level, agent=step.agent, step=step.id, status=status, data=data)


def run_event(execution: Execution, now: datetime, event: str, message: str, *, step: str | None = None) -> LogEvent:
    """Answer a line about the whole run."""
    failed = execution.error is not None
    return LogEvent(
        now, event, message, step=step, level="error" if failed else "info", status="error" if failed else "success"
    )


def step_started_event(step: Step, now: datetime) -> LogEvent:
    """Answer the line of a claim."""
    return step_event(step, now, "step.started", f"{step.id} started, attempt {step.claims}", status="running")
