"""Fails for a while with an error that may pass, then answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.agent_errors import TransientError
from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    if "path" not in given:
        return {}
    tries = Path(given["path"])
    so_far = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (so_far + 1))
    if so_far < given.get("failures", 0):
        raise TransientError(f"try {so_far + 1} went wrong")
    return {"tries": so_far + 1}
