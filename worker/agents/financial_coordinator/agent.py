"""Keeps a ledger: adds a transaction once, lists all, or reports their sums; it uses only ``ctx.ledger``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from worker.context import AgentContext
from worker.money import flow_of, signed_amount_of


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Do ``given["action"]``; the output always has ``transactions``, the newest 1,000, for the next step."""
    action = given["action"]
    outcome: dict[str, Any] = {}
    if action == "add_transaction":
        outcome["transaction"] = _add(given["transaction"], ctx)
    elif action not in {"get_transactions", "get_report"}:
        raise ValueError(f"action must be get_transactions, add_transaction or get_report, not {action!r:.64}")
    transactions = [dict(transaction) for transaction in ctx.ledger.transactions()]
    if action == "get_report":
        outcome["report"] = {**asdict(flow_of(transactions)), "count": len(transactions)}
    if action == "get_transactions":
        outcome["count"] = len(transactions)
    ctx.log(f"did {action}", transactions=len(transactions))
    return {**outcome, "transactions": transactions}


def _add(transaction: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    # The key is the same for every attempt of this step, so an attempt after a crash adds nothing twice.
    kind = "expense" if signed_amount_of(transaction) < 0 else "income"
    entry = {
        "id": ctx.idempotency_key,
        "amount": transaction["amount"],
        "description": transaction.get("description", ""),
        "type": transaction.get("type", kind),
    }
    return dict(ctx.ledger.add(ctx.idempotency_key, entry))
