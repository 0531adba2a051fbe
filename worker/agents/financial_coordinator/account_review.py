"""Reviews one account, and all together: from transactions to figures, recommendations and a report of bounded size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .account_figures import CurrencyFigures, Figures, fold_categories, fold_months
from .cash_forecast import forecast_of
from .recurring_payments import RecurringPayments
from .review_advice import advice_of, savings_rate_of
from .transaction_reader import CheckedTransaction, ReadingNotes

Recurring = Mapping[str, Sequence[Mapping[str, Any]]]
"""Recurring payments by currency."""


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of each list a report shows."""

    name: str
    months: int
    categories: int
    largest: int
    recurring: int
    has_forecast: bool


DETAILS: Final = (
    Detail("full", 24, 20, 5, 10, True),
    Detail("short", 12, 8, 3, 5, True),
    Detail("brief", 3, 3, 1, 0, False),
    Detail("totals", 0, 0, 0, 0, False),
)
OVERALL_DETAIL: Final = Detail("full", 120, 50, 10, 20, True)


@dataclass(frozen=True, slots=True)
class AccountFindings:
    """What one account's transactions say."""

    account: str
    figures: Figures
    recurring: Recurring
    notes: ReadingNotes

    def to_json(self, bytes_max: int) -> dict[str, Any]:
        """Return the account's report with as much detail as fits into ``bytes_max``."""
        for detail in DETAILS:
            report = self._report(currencies_report(self.figures, self.recurring, detail), detail.name)
            if json_bytes(report) <= bytes_max:
                return report
        return self._report([], "none")

    def _report(self, currencies: list[dict[str, Any]], detail: str) -> dict[str, Any]:
        return {
            "account": self.account or None,
            "status": "reviewed",
            "detail": detail,
            "transactions": sum(figures.count for figures in self.figures.currencies),
            "unread": self.notes.unread_count,
            "duplicates": self.notes.duplicate_count,
            "currencies": currencies,
        }


def analyse(account: str, transactions: Iterable[CheckedTransaction], notes: ReadingNotes) -> AccountFindings:
    """Return the findings of one account; ``notes`` are those of the reader that yields ``transactions``."""
    figures, payments = Figures(), RecurringPayments()
    for transaction in transactions:
        figures.of(transaction.currency).add(transaction, account)
        payments.add(transaction)
    for currency in figures.currencies:
        currency.fold()
    return AccountFindings(account, figures, payments.find(account), notes)


def currencies_report(figures: Figures, recurring: Recurring, detail: Detail) -> list[dict[str, Any]]:
    """Return the report of each currency."""
    return [_currency_report(each, recurring.get(each.currency, ()), detail) for each in figures.currencies]


def json_bytes(value: Any) -> int:
    """Return how many bytes a value takes as JSON, as it is stored."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _currency_report(
    figures: CurrencyFigures, recurring: Sequence[Mapping[str, Any]], detail: Detail
) -> dict[str, Any]:
    code = figures.currency
    forecast = forecast_of(figures.months, code) if detail.has_forecast else None
    months = fold_months(figures.months, detail.months) if detail.months else {}
    categories = fold_categories(figures.categories, detail.categories) if detail.categories else {}
    return {
        "currency": code or None,
        "transactions": figures.count,
        "undated": figures.undated,
        "first_date": figures.first_date or None,
        "last_date": figures.last_date or None,
        **figures.flow.to_json(code),
        "savings_rate": savings_rate_of(figures),
        "months": [{"month": name, **flow.to_json(code)} for name, flow in months.items()],
        "categories": [{"category": name, **flow.to_json(code)} for name, flow in categories.items()],
        "largest": figures.largest[: detail.largest],
        "recurring": list(recurring[: detail.recurring]),
        "forecast": forecast,
        "recommendations": advice_of(figures, recurring, forecast),
    }
