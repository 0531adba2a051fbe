"""Sums transactions exactly, for each currency by itself: totals, months, categories and the largest movements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from worker.agent_errors import PermanentError
from worker.money import add_exactly, rounded_to

from .minor_units import decimals_of
from .transaction_reader import CheckedTransaction

CURRENCIES_MAX: Final = 20
MONTHS_MAX: Final = 120
CATEGORIES_MAX: Final = 100
LARGEST_MAX: Final = 10
EARLIER: Final = "earlier"
OTHER: Final = "(other)"
UNCATEGORISED: Final = "uncategorised"
_ZERO: Final = Decimal(0)


@dataclass(slots=True)
class Flow:
    """What came in and what went out, exactly; ``expenses`` is 0 or below it."""

    income: Decimal = _ZERO
    expenses: Decimal = _ZERO

    def add(self, amount: Decimal) -> None:
        """Add one movement."""
        self.merge(Flow(amount, _ZERO) if amount > 0 else Flow(_ZERO, amount))

    def merge(self, other: Flow) -> None:
        """Add another flow."""
        self.income = add_exactly(self.income, other.income)
        self.expenses = add_exactly(self.expenses, other.expenses)

    @property
    def net(self) -> Decimal:
        """Income and expenses together."""
        return add_exactly(self.income, self.expenses)

    @property
    def size(self) -> Decimal:
        """How much moved, in either direction."""
        return add_exactly(self.income, self.expenses.copy_abs())

    def to_json(self, currency: str) -> dict[str, str]:
        """Return the flow as texts with the currency's decimals."""
        return {
            "income": money_text(self.income, currency),
            "expenses": money_text(self.expenses, currency),
            "net": money_text(self.net, currency),
        }


@dataclass(slots=True)
class CurrencyFigures:
    """The figures of one currency; ``months`` by ``YYYY-MM``, those before the newest 120 under ``earlier``."""

    currency: str
    count: int = 0
    undated: int = 0
    first_date: str = ""
    last_date: str = ""
    flow: Flow = field(default_factory=Flow)
    months: dict[str, Flow] = field(default_factory=dict)
    categories: dict[str, Flow] = field(default_factory=dict)
    largest: list[dict[str, Any]] = field(default_factory=list)

    def add(self, transaction: CheckedTransaction, account: str) -> None:
        """Add one transaction of this currency."""
        self.count += 1
        self.flow.add(transaction.amount)
        self.categories.setdefault(transaction.texts["category"] or UNCATEGORISED, Flow()).add(transaction.amount)
        if transaction.day is None:
            self.undated += 1
        else:
            day = transaction.day.isoformat()
            self.first_date = min(self.first_date or day, day)
            self.last_date = max(self.last_date, day)
            self.months.setdefault(day[:7], Flow()).add(transaction.amount)
        self._add_largest(transaction, account)
        if len(self.months) > 2 * MONTHS_MAX or len(self.categories) > 2 * CATEGORIES_MAX:
            self.fold()

    def merge(self, other: CurrencyFigures) -> None:
        """Add the figures of another account in the same currency."""
        self.count += other.count
        self.undated += other.undated
        dates = [date for date in (self.first_date, other.first_date) if date]
        self.first_date, self.last_date = min(dates, default=""), max(self.last_date, other.last_date)
        self.flow.merge(other.flow)
        for own, others in ((self.months, other.months), (self.categories, other.categories)):
            for name, flow in others.items():
                own.setdefault(name, Flow()).merge(flow)
        self.largest = _largest([*self.largest, *other.largest])
        self.fold()

    def fold(self) -> None:
        """Sum what is more than is kept: months before the newest 120, and all but the 100 largest categories."""
        self.months = fold_months(self.months, MONTHS_MAX)
        self.categories = fold_categories(self.categories, CATEGORIES_MAX)

    def to_state(self) -> dict[str, Any]:
        """Return the figures as JSON, from which :meth:`from_state` makes them again exactly."""
        return {
            "currency": self.currency,
            "counts": [self.count, self.undated],
            "dates": [self.first_date, self.last_date],
            "flow": _flow_state(self.flow),
            "months": {month: _flow_state(flow) for month, flow in self.months.items()},
            "categories": {name: _flow_state(flow) for name, flow in self.categories.items()},
            "largest": self.largest,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CurrencyFigures:
        """Build the figures that :meth:`to_state` returned."""
        (count, undated), (first_date, last_date) = state["counts"], state["dates"]
        return cls(
            currency=state["currency"],
            count=count,
            undated=undated,
            first_date=first_date,
            last_date=last_date,
            flow=_flow_of(state["flow"]),
            months={month: _flow_of(raw) for month, raw in state["months"].items()},
            categories={name: _flow_of(raw) for name, raw in state["categories"].items()},
            largest=list(state["largest"]),
        )

    def _add_largest(self, transaction: CheckedTransaction, account: str) -> None:
        is_full = len(self.largest) >= LARGEST_MAX
        if is_full and transaction.amount.copy_abs() <= Decimal(self.largest[-1]["amount"]).copy_abs():
            return
        movement = {
            "id": transaction.id,
            "account": account or None,
            "amount": money_text(transaction.amount, self.currency),
            "date": transaction.date or None,
            "payee": transaction.payee[:100],
        }
        self.largest = _largest([*self.largest, movement])


class Figures:
    """The figures of many transactions, each currency by itself."""

    def __init__(self, currencies: Iterable[CurrencyFigures] = ()) -> None:
        self._by_code = {figures.currency: figures for figures in currencies}

    @property
    def currencies(self) -> list[CurrencyFigures]:
        """The figures of each currency, sorted by its code."""
        return [figures for _, figures in sorted(self._by_code.items())]

    def of(self, currency: str) -> CurrencyFigures:
        """Return the figures of a currency, made if there are none; raises PermanentError beyond 20 currencies."""
        if currency not in self._by_code and len(self._by_code) >= CURRENCIES_MAX:
            raise PermanentError(f"there are transactions in over {CURRENCIES_MAX} currencies")
        return self._by_code.setdefault(currency, CurrencyFigures(currency))

    def merge(self, other: Figures) -> None:
        """Add the figures of another account; raises PermanentError, before any is added, beyond 20 currencies."""
        if len({*self._by_code, *other._by_code}) > CURRENCIES_MAX:
            raise PermanentError(f"all accounts together have transactions in over {CURRENCIES_MAX} currencies")
        for figures in other.currencies:
            self.of(figures.currency).merge(figures)


def money_text(amount: Decimal, currency: str) -> str:
    """Return an amount as a decimal text with the currency's decimals, rounded half to even."""
    return f"{rounded_to(amount, decimals_of(currency)):f}"


def fold_months(months: Mapping[str, Flow], kept: int) -> dict[str, Flow]:
    """Return the newest months, oldest first, and the sum of all before them as the first, ``earlier``."""
    names = sorted(name for name in months if name != EARLIER)
    newest = names[-kept:] if kept else []
    return _folded(months, newest, EARLIER, is_first=True)


def fold_categories(categories: Mapping[str, Flow], kept: int) -> dict[str, Flow]:
    """Return the largest categories, by what moved, and the sum of all others as the last, ``(other)``."""
    by_size: Callable[[str], tuple[Decimal, str]] = lambda name: (-categories[name].size, name)  # noqa: E731
    return _folded(categories, sorted(categories.keys() - {OTHER}, key=by_size)[:kept], OTHER, is_first=False)


def _folded(flows: Mapping[str, Flow], kept: list[str], rest: str, *, is_first: bool) -> dict[str, Flow]:
    folded = Flow()
    others = flows.keys() - set(kept)
    for name in others:
        folded.merge(flows[name])
    kept_flows = {name: flows[name] for name in kept}
    if not others:
        return kept_flows
    return {rest: folded, **kept_flows} if is_first else {**kept_flows, rest: folded}


def _largest(movements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_size = sorted(movements, key=lambda each: (-abs(Decimal(each["amount"])), each["date"] or "", str(each["id"])))
    return by_size[:LARGEST_MAX]


def _flow_state(flow: Flow) -> list[str]:
    return [str(flow.income), str(flow.expenses)]


def _flow_of(state: Iterable[str]) -> Flow:
    return Flow(*map(Decimal, state))
