"""Returns an output of a given size."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    return {"text": "x" * given.get("bytes", 0)}
