"""Keeps a ledger: adds a transaction once, lists all, or reports their sums; it uses only ``ctx.ledger``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from worker.context import AgentContext
from worker.money import UnknownTypes, flow_of, signed_amount_of

LISTED_MAX: Final = 1_000


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
        outcome["report"] = _report(ctx)
    if action == "get_transactions":
        outcome["count"] = len(transactions)
    if len(transactions) >= LISTED_MAX:
        ctx.log(f"at most the newest {LISTED_MAX:,} transactions are listed; a report sums all", level="warning")
    ctx.log(f"did {action}", transactions=len(transactions))
    return {**outcome, "transactions": transactions}


def _report(ctx: AgentContext) -> dict[str, Any]:
    """Sum the whole ledger, page by page."""
    count, unknown_types = 0, UnknownTypes()

    def counted() -> Iterator[Mapping[str, Any]]:
        nonlocal count
        for transaction in ctx.ledger.all_transactions():
            count += 1
            yield transaction

    sums = asdict(flow_of(counted(), unknown_types))
    if warning := unknown_types.describe():
        ctx.log(warning, level="warning")
    return {**sums, "count": count}


def _add(transaction: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    # The key is the same for every attempt of this step, so an attempt after a crash adds nothing twice.
    kind = "expense" if signed_amount_of(transaction) < 0 else "income"
    entry = {
        "id": ctx.idempotency_key,
        "amount": transaction["amount"],
        "description": transaction.get("description") or "",
        "type": transaction.get("type") or kind,
    }
    return dict(ctx.ledger.add(ctx.idempotency_key, entry))
