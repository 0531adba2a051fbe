"""Recommends one thing from an analysis of cash flow; it uses only its input."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{"recommendations": [one string]}``, depending on whether ``analysis.total`` is above zero."""
    total = given["analysis"]["total"]
    recommendation = "Increase savings" if total > 0 else "Reduce expenses"
    ctx.log("recommended", total=total, recommendation=recommendation)
    return {"recommendations": [recommendation]}
