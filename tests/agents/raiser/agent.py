"""Raises the error that its input names."""

from __future__ import annotations

import builtins
from typing import Any

from worker import agent_errors
from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    kind = given.get("kind", "none")
    if kind == "none":
        return {"raised": False}
    raised = getattr(agent_errors, kind, None) or getattr(builtins, kind)
    raise raised(given.get("message", f"the raiser was told to raise {kind}"))
