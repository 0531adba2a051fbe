"""Exact sums of money in decimal arithmetic, rounded once; it never adds binary floats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from worker.agent_errors import InvalidInputError

AMOUNT_MAX: Final = Decimal("999999999999.99")
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


class RunningFlow:
    """Sums transactions one by one, exactly; see :func:`flow_of`."""

    def __init__(self, unknown_types: UnknownTypes | None = None) -> None:
        self._unknown_types = unknown_types
        self._positive = self._negative = Decimal(0)
        self.count = 0

    def add(self, transaction: Mapping[str, Any]) -> None:
        """Add one transaction; raises NotMoney for an amount that is not money."""
        amount = signed_amount_of(transaction)
        if self._unknown_types is not None and (name := _type_of(transaction)) and name not in _KNOWN_TYPES:
            self._unknown_types.counts[name[:64]] += 1
        if amount > 0:
            self._positive = _EXACT_CONTEXT.add(self._positive, amount)
        else:
            self._negative = _EXACT_CONTEXT.add(self._negative, amount)
        self.count += 1

    def cash_flow(self) -> CashFlow:
        """Return the sums so far; raises NotMoney for a sum that a JSON number cannot tell to the cent."""
        total = _EXACT_CONTEXT.add(self._positive, self._negative)
        return CashFlow(to_json_number(total), to_json_number(self._positive), to_json_number(self._negative))


def flow_of(transactions: Iterable[Mapping[str, Any]], unknown_types: UnknownTypes | None = None) -> CashFlow:
    """Sum what came in, what went out, and both together; types that are not known are added to ``unknown_types``.

    Raises NotMoney for an amount that is not money, and for a sum that a JSON number cannot tell to the cent.
    """
    flow = RunningFlow(unknown_types)
    for transaction in transactions:
        flow.add(transaction)
    return flow.cash_flow()


def signed_amount_of(transaction: Mapping[str, Any]) -> Decimal:
    """Return a transaction's amount; a positive one whose ``type`` says that it went out counts as negative."""
    return with_direction(exact_decimal_of(transaction.get("amount")), transaction.get("type"))


def with_direction(amount: Decimal, kind: object) -> Decimal:
    """Return ``amount``, negated if it is positive and its type ``kind`` says that it went out."""
    # copy_abs and copy_negate, because abs() and - would round by the context of the thread.
    return amount.copy_negate() if amount > 0 and _normal_type(kind) in _EXPENSE_TYPES else amount


def add_exactly(*amounts: Decimal) -> Decimal:
    """Return the exact sum of amounts, whatever the decimal context of the thread is."""
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT_CONTEXT.add(total, amount)
    return total


def rounded_to(amount: Decimal, decimals: int) -> Decimal:
    """Return ``amount`` with ``decimals`` places, rounded half to even; never a negative zero."""
    rounded = amount.quantize(Decimal((0, (1,), -decimals)), context=_EXACT_CONTEXT)
    return rounded or rounded.copy_abs()


def exact_decimal_of(amount: object) -> Decimal:
    """Return ``amount``, a JSON number, as the decimal that was written; raises NotMoney beyond ±``AMOUNT_MAX``."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise NotMoney(f"an amount must be a number, not {type(amount).__name__}")
    value = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    if not value.is_finite() or value.copy_abs() > AMOUNT_MAX:
        raise NotMoney(f"an amount must lie within ±{AMOUNT_MAX:,}")
    return value


def to_json_number(amount: Decimal, decimals: int = 2) -> int | float:
    """Return an amount rounded to ``decimals`` places, half to even; raises NotMoney if a double cannot tell it."""
    rounded = rounded_to(amount, decimals)
    is_whole = rounded == rounded.to_integral_value()
    # Readers of JSON take a number for a double, which tells whole numbers up to 2^53 and cents up to 2^46.
    number = float(rounded)
    if rounded != (Decimal(number) if is_whole else Decimal(repr(number))):
        raise NotMoney(f"the sum {rounded:,} is too large for a JSON number to tell to the cent: sum fewer")
    return int(rounded) if is_whole else number


def _type_of(transaction: Mapping[str, Any]) -> str:
    return _normal_type(transaction.get("type"))


def _normal_type(kind: object) -> str:
    return kind.strip().casefold() if isinstance(kind, str) else ""
