"""Exact sums of money in decimal arithmetic, rounded once; it never adds binary floats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

AMOUNT_MAX: Final = Decimal("999999999999.99")
_CENT: Final = Decimal("0.01")
# A float's shortest text reaches down to 1e-324; with 400 digits every sum of amounts within AMOUNT_MAX is exact.
_EXACT_CONTEXT: Final = Context(prec=400, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class CashFlow:
    """Sums of a list of transactions as JSON numbers of at most two places; ``negative`` is 0 or below it."""

    total: int | float
    positive: int | float
    negative: int | float


def flow_of(transactions: Iterable[Mapping[str, Any]]) -> CashFlow:
    """Sum what came in, what went out, and both together; raises ValueError for an amount that is not money."""
    positive = negative = Decimal(0)
    for transaction in transactions:
        amount = signed_amount_of(transaction)
        if amount > 0:
            positive = _EXACT_CONTEXT.add(positive, amount)
        else:
            negative = _EXACT_CONTEXT.add(negative, amount)
    return CashFlow(
        _to_json_number(_EXACT_CONTEXT.add(positive, negative)), _to_json_number(positive), _to_json_number(negative)
    )


def signed_amount_of(transaction: Mapping[str, Any]) -> Decimal:
    """Return a transaction's amount; a positive one whose ``type`` is ``expense`` counts as negative."""
    amount = exact_decimal_of(transaction.get("amount"))
    kind = transaction.get("type")
    is_expense = isinstance(kind, str) and kind.strip().lower() == "expense"
    return -amount if is_expense and amount > 0 else amount


def exact_decimal_of(amount: object) -> Decimal:
    """Return ``amount``, a JSON number, as the decimal that was written; raises ValueError beyond ±``AMOUNT_MAX``."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise ValueError(f"an amount must be a number, not {type(amount).__name__}")  # noqa: TRY004 - one error for all
    value = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    if not value.is_finite() or abs(value) > AMOUNT_MAX:
        raise ValueError(f"an amount must lie within ±{AMOUNT_MAX:,}")
    return value


def _to_json_number(amount: Decimal) -> int | float:
    rounded = amount.quantize(_CENT, context=_EXACT_CONTEXT)
    return int(rounded) if rounded == rounded.to_integral_value() else float(rounded)
