"""Fails a given number of times with a transient error, then succeeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.agent_errors import TransientError
from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    if "path" not in given:
        return {}
    tries = Path(given["path"])
    failures_so_far = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (failures_so_far + 1))
    if failures_so_far < given.get("failures", 0):
        raise TransientError(f"try {failures_so_far + 1} went wrong")
    return {"tries": failures_so_far + 1}
