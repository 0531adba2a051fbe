"""Returns its input."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    return given
