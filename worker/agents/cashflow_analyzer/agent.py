"""Sums a list of transactions; it uses only its input."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from worker.context import AgentContext
from worker.money import UnknownTypes, flow_of


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{"analysis": {total, positive, negative}}``; raises NotMoney for amounts that cannot be summed."""
    transactions, unknown_types = given["transactions"], UnknownTypes()
    analysis = asdict(flow_of(transactions, unknown_types))
    if warning := unknown_types.describe():
        ctx.log(warning, level="warning")
    ctx.log("analysed the transactions", transactions=len(transactions), **analysis)
    return {"analysis": analysis}
