"""Writes log lines."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    lines = given.get("lines", 0)
    for number in range(1, lines + 1):
        ctx.log(f"line {number}".ljust(given.get("bytes", 0), "."), number=number)
    return {"lines": lines}
