"""Returns the state that it got from the previous run."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    return {"previous_state": ctx.previous_state}
