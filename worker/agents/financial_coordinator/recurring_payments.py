"""Finds recurring payments: the same payee, similar amounts, a regular interval, at least three times."""

from __future__ import annotations

import re
from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from .account_figures import money_text
from .transaction_reader import CheckedTransaction

OCCURRENCES_MIN: Final = 3
SIMILAR: Final = Decimal("1.15")
"""Amounts are similar if the largest is at most 15 % above the smallest."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A regular interval: between two payments lie ``days_min`` to ``days_max`` days."""

    name: str
    days_min: int
    days_max: int
    per_year: int


INTERVALS: Final = (
    Interval("weekly", 6, 8, 52),
    Interval("fortnightly", 13, 16, 26),
    Interval("monthly", 26, 35, 12),
    Interval("quarterly", 84, 98, 4),
    Interval("yearly", 355, 375, 1),
)
_BY_NAME: Final = {interval.name: interval for interval in INTERVALS}
_DIGITS: Final = re.compile(r"[\d\W_]+")


class RecurringPayments:
    """Collects the payments of one account, and finds those that recur."""

    def __init__(self) -> None:
        self._payments: defaultdict[tuple[str, str, bool], list[tuple[Decimal, date, str]]] = defaultdict(list)

    def add(self, transaction: CheckedTransaction) -> None:
        """Take one transaction; those without a date, a payee or an amount cannot recur."""
        payee = normal_payee(transaction.payee)
        if payee and transaction.day is not None and transaction.amount:
            key = (transaction.currency, payee, transaction.amount > 0)
            self._payments[key].append((transaction.amount, transaction.day, transaction.payee))

    def find(self, account: str) -> dict[str, list[dict[str, Any]]]:
        """Return the recurring payments by currency, the largest in a year first."""
        found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for (currency, _, _), payments in sorted(self._payments.items()):
            for similar in _similar_amounts(payments):
                if (interval := _interval_of([day for _, day, _ in similar])) is not None:
                    found[currency].append(_recurring(similar, interval, currency, account))
        return {currency: largest_in_a_year(payments) for currency, payments in found.items()}


def normal_payee(payee: str) -> str:
    """Return a payee without case, digits and signs, so that "Rent 01/2026" and "RENT 02/2026" are the same."""
    return _DIGITS.sub(" ", payee.casefold()).strip()


def yearly_amount(payment: dict[str, Any]) -> Decimal:
    """Return what a recurring payment sums to in a year."""
    return Decimal(payment["amount"]) * _BY_NAME[payment["interval"]].per_year


def largest_in_a_year(payments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort recurring payments by what they sum to in a year, the largest first."""
    return sorted(payments, key=lambda each: (-abs(yearly_amount(each)), each["payee"], each["first_date"]))


def _similar_amounts(payments: Sequence[tuple[Decimal, date, str]]) -> Iterator[list[tuple[Decimal, date, str]]]:
    """Yield groups of at least three payments of similar amounts, each oldest first."""
    by_amount = sorted(payments, key=lambda payment: (payment[0].copy_abs(), payment[1]))
    group: list[tuple[Decimal, date, str]] = []
    for payment in by_amount:
        if group and payment[0].copy_abs() > group[0][0].copy_abs() * SIMILAR:
            yield from _if_enough(group)
            group = []
        group.append(payment)
    yield from _if_enough(group)


def _if_enough(group: list[tuple[Decimal, date, str]]) -> Iterator[list[tuple[Decimal, date, str]]]:
    if len(group) >= OCCURRENCES_MIN:
        yield sorted(group, key=lambda payment: payment[1])


def _interval_of(days: Sequence[date]) -> Interval | None:
    gaps = [(later - earlier).days for earlier, later in pairwise(days)]
    for interval in INTERVALS:
        if all(interval.days_min <= gap <= interval.days_max for gap in gaps):
            return interval
    return None


def _recurring(
    payments: Sequence[tuple[Decimal, date, str]], interval: Interval, currency: str, account: str
) -> dict[str, Any]:
    amounts = sorted(amount for amount, _, _ in payments)
    last = payments[-1][1]
    following = _following_date(payments[0][1], last, interval)
    return {
        "payee": payments[-1][2][:100],
        "account": account or None,
        "amount": money_text(amounts[len(amounts) // 2], currency),
        "interval": interval.name,
        "count": len(payments),
        "first_date": payments[0][1].isoformat(),
        "last_date": last.isoformat(),
        "next_date": following.isoformat() if following else None,
    }


def _following_date(first: date, last: date, interval: Interval) -> date | None:
    """Return when the next payment is expected; one at the 31st stays at the end of shorter months."""
    try:
        if interval.per_year > 12:  # noqa: PLR2004  (more often than each month)
            return last + timedelta(days=(interval.days_min + interval.days_max) // 2)
        months = last.month - 1 + 12 // interval.per_year
        year, month = last.year + months // 12, months % 12 + 1
        day = max(first.day, last.day) if interval.name == "monthly" else last.day
        return date(year, month, min(day, monthrange(year, month)[1]))
    except (ValueError, OverflowError):  # beyond the year 9999
        return None
