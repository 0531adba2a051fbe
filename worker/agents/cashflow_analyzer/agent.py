"""Sums a list of transactions; it uses only its input."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from worker.context import AgentContext
from worker.money import flow_of


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{"analysis": {total, positive, negative}}``; raises ValueError for an amount that is not money."""
    transactions = given["transactions"]
    analysis = asdict(flow_of(transactions))
    ctx.log("analysed the transactions", transactions=len(transactions), **analysis)
    return {"analysis": analysis}
