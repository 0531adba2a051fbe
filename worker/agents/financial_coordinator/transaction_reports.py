"""The quick actions' results: the newest transactions as a list, and sums for each currency."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any, Final

from worker.context import AgentContext
from worker.money import RunningFlow, UnknownTypes, add_exactly, to_json_number

from .account_figures import Figures
from .minor_units import decimals_of
from .provider_amounts import Unreadable, amount_of
from .transaction_reader import CheckedTransaction, ReadingNotes, currency_of

LISTED_MAX: Final = 1_000
_COUNT_MAX: Final = 2**53


def newest_of(transactions: Iterable[CheckedTransaction]) -> list[dict[str, Any]]:
    """Return the newest 1,000, oldest first; those without a date count as the oldest, in the order of the provider."""
    numbered = enumerate(transactions)
    newest = heapq.nlargest(
        LISTED_MAX, numbered, key=lambda item: (item[1].day.toordinal() if item[1].day else 0, item)
    )
    return [transaction.to_json() for _, transaction in reversed(newest)]


def ledger_report(ctx: AgentContext, account: str | None) -> dict[str, Any]:
    """Sum the whole ledger, or an account of it, page by page."""
    unknown_types = UnknownTypes()
    flows: dict[str, RunningFlow] = {}
    for transaction in ctx.ledger.all_transactions(account):
        code = transaction.get("currency") or ""
        flows.setdefault(code, RunningFlow(unknown_types)).add(transaction)
    if warning := unknown_types.describe():
        ctx.log(warning, level="warning")
    return _one_or_many({code: {**asdict(flow.cash_flow()), "count": flow.count} for code, flow in flows.items()})


def report_of_transactions(transactions: Iterable[CheckedTransaction]) -> dict[str, Any]:
    """Sum transactions, for a provider that makes no reports."""
    figures = Figures()
    for transaction in transactions:
        figures.of(transaction.currency).add(transaction, "")
    return _one_or_many(
        {
            each.currency: _sums(each.currency, each.flow.income, each.flow.expenses, each.count)
            for each in figures.currencies
        }
    )


def report_of_reports(reports: Iterable[Any], notes: ReadingNotes) -> dict[str, Any]:
    """Add up a provider's reports ``{currency?, total, positive, negative, count}``, for each currency by itself."""
    sums: dict[str, tuple[Decimal, Decimal, int]] = {}
    for number, raw in enumerate(reports):
        try:
            code, positive, negative, count = _checked_report(raw)
        except Unreadable as error:
            notes.add_unread(str(error), report=number)
            continue
        before = sums.get(code, (Decimal(0), Decimal(0), 0))
        sums[code] = (add_exactly(before[0], positive), add_exactly(before[1], negative), before[2] + count)
    return _one_or_many({code: _sums(code, *figures) for code, figures in sums.items()})


def _checked_report(raw: Any) -> tuple[str, Decimal, Decimal, int]:
    if not isinstance(raw, Mapping):
        raise Unreadable(f"a report must be an object, not a {type(raw).__name__}")
    code = currency_of(raw.get("currency"))
    total, positive, negative = (amount_of(raw.get(name), code) for name in ("total", "positive", "negative"))
    count = raw.get("count")
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < _COUNT_MAX:
        raise Unreadable("a report's count must be a whole number")
    if positive < 0 or negative > 0 or add_exactly(positive, negative) != total:
        raise Unreadable(f"a report's total must be positive and negative together, and is {total}")
    return code, positive, negative, count


def _sums(code: str, positive: Decimal, negative: Decimal, count: int) -> dict[str, Any]:
    decimals = decimals_of(code)
    return {
        "total": to_json_number(add_exactly(positive, negative), decimals),
        "positive": to_json_number(positive, decimals),
        "negative": to_json_number(negative, decimals),
        "count": count,
    }


def _one_or_many(sums: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the sums of the one currency, or, as currencies are never added to each other, of each."""
    if not sums:
        return _sums("", Decimal(0), Decimal(0), 0)
    if len(sums) == 1:
        ((code, only),) = sums.items()
        return {**only, "currency": code} if code else only
    currencies = [{"currency": code or None, **each} for code, each in sorted(sums.items())]
    return {"count": sum(each["count"] for each in currencies), "currencies": currencies}
