"""Exact sums of money in decimal arithmetic, rounded once; it never adds binary floats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from worker.agent_errors import InvalidInputError

AMOUNT_MAX: Final = Decimal("999999999999.99")
_CENT: Final = Decimal("0.01")
# A float's shortest text reaches down to 1e-324; with 400 digits every sum of amounts within AMOUNT_MAX is exact.
_EXACT_CONTEXT: Final = Context(prec=400, rounding=ROUND_HALF_EVEN)
# What banks, ledgers and ISO 20022 (CRDT, DBIT) call the two directions.
_EXPENSE_TYPES: Final = frozenset(
    ("expense", "expenses", "debit", "dbit", "withdrawal", "outflow", "outgoing", "charge", "fee", "spending")
)
_INCOME_TYPES: Final = frozenset(
    ("income", "credit", "crdt", "deposit", "inflow", "incoming", "refund", "salary", "interest")
)
_KNOWN_TYPES: Final = _EXPENSE_TYPES | _INCOME_TYPES


class NotMoney(InvalidInputError, ValueError):
    """An amount is not money, or a sum cannot be told exactly."""


@dataclass(frozen=True, slots=True)
class CashFlow:
    """Sums of a list of transactions as JSON numbers of at most two places; ``negative`` is 0 or below it."""

    total: int | float
    positive: int | float
    negative: int | float


@dataclass(slots=True)
class UnknownTypes:
    """How many transactions have a type that is not known, by type; such a transaction counts by its sign."""

    counts: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Return a sentence with the five most frequent ones, or "" if every type is known."""
        if not self.counts:
            return ""
        names = ", ".join(f"{name!r} ({count})" for name, count in self.counts.most_common(5))
        return f"{self.counts.total()} transactions have a type that is not known and count by their sign: {names}"


def flow_of(transactions: Iterable[Mapping[str, Any]], unknown_types: UnknownTypes | None = None) -> CashFlow:
    """Sum what came in, what went out, and both together; types that are not known are added to ``unknown_types``.

    Raises NotMoney for an amount that is not money, and for a sum that a JSON number cannot tell to the cent.
    """
    positive = negative = Decimal(0)
    for transaction in transactions:
        amount = signed_amount_of(transaction)
        if unknown_types is not None and (name := _type_of(transaction)) and name not in _KNOWN_TYPES:
            unknown_types.counts[name[:64]] += 1
        if amount > 0:
            positive = _EXACT_CONTEXT.add(positive, amount)
        else:
            negative = _EXACT_CONTEXT.add(negative, amount)
    return CashFlow(
        _to_json_number(_EXACT_CONTEXT.add(positive, negative)), _to_json_number(positive), _to_json_number(negative)
    )


def signed_amount_of(transaction: Mapping[str, Any]) -> Decimal:
    """Return a transaction's amount; a positive one whose ``type`` says that it went out counts as negative."""
    amount = exact_decimal_of(transaction.get("amount"))
    return amount.copy_negate() if amount > 0 and _type_of(transaction) in _EXPENSE_TYPES else amount


def exact_decimal_of(amount: object) -> Decimal:
    """Return ``amount``, a JSON number, as the decimal that was written; raises NotMoney beyond ±``AMOUNT_MAX``."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise NotMoney(f"an amount must be a number, not {type(amount).__name__}")
    value = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    # copy_abs and copy_negate, because abs() and - would round by the context of the thread.
    if not value.is_finite() or value.copy_abs() > AMOUNT_MAX:
        raise NotMoney(f"an amount must lie within ±{AMOUNT_MAX:,}")
    return value


def _to_json_number(amount: Decimal) -> int | float:
    rounded = amount.quantize(_CENT, context=_EXACT_CONTEXT)
    is_whole = rounded == rounded.to_integral_value()
    # Readers of JSON take a number for a double, which tells whole numbers up to 2^53 and cents up to 2^46.
    number = float(rounded)
    if rounded != (Decimal(number) if is_whole else Decimal(repr(number))):
        raise NotMoney(f"the sum {rounded:,} is too large for a JSON number to tell to the cent: sum fewer")
    return int(rounded) if is_whole else number


def _type_of(transaction: Mapping[str, Any]) -> str:
    kind = transaction.get("type")
    return kind.strip().casefold() if isinstance(kind, str) else ""
