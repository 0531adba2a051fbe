"""Recommends by simple, stated rules what to look at; each recommendation has a code that stays the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from worker.money import add_exactly

from .account_figures import OTHER, UNCATEGORISED, CurrencyFigures, money_text
from .recurring_payments import yearly_amount

SAVINGS_RATE_LOW: Final = Decimal("0.10")
CATEGORY_SHARE_LARGE: Final = Decimal("0.30")
RECURRING_SHARE_LARGE: Final = Decimal("0.50")
_RATIO: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_FOUR_PLACES: Final = Decimal("0.0001")
_PERCENT: Final = Decimal(100)


def savings_rate_of(figures: CurrencyFigures) -> float | None:
    """Return the part of the income that was not spent, such as 0.25, to four places; None without income."""
    income = figures.flow.income
    if not income:
        return None
    rate = _RATIO.divide(figures.flow.net, income)
    return float(rate.quantize(_FOUR_PLACES, context=_RATIO)) or 0.0


def advice_of(
    figures: CurrencyFigures, recurring: Sequence[Mapping[str, Any]], forecast: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return recommendations ``{code, currency, message}`` for one currency, the most pressing first."""
    advice = [*_on_savings(figures), *_on_forecast(forecast), *_on_categories(figures), *_on_recurring(recurring)]
    code = figures.currency
    return [
        {"code": name, "currency": code or None, "message": f"{code}: {text}" if code else text}
        for name, text in advice
    ]


def _on_savings(figures: CurrencyFigures) -> Iterator[tuple[str, str]]:
    flow = figures.flow
    if flow.net < 0:
        missing = money_text(flow.net.copy_abs(), figures.currency)
        yield "spends_more_than_earns", f"Spending is {missing} above the income: reduce expenses"
    elif flow.income and _RATIO.divide(flow.net, flow.income) < SAVINGS_RATE_LOW:
        yield "low_savings_rate", "Under 10 % of the income is saved: increase savings"


def _on_forecast(forecast: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if forecast and Decimal(forecast["months"][0]["net"]) < 0:
        net = forecast["months"][0]["net"]
        yield "negative_forecast", f"If the last months go on, each month ends with {net}"


def _on_categories(figures: CurrencyFigures) -> Iterator[tuple[str, str]]:
    expenses = figures.flow.expenses
    for name, flow in sorted(figures.categories.items(), key=lambda item: (item[1].expenses, item[0])):
        if name in {OTHER, UNCATEGORISED} or not flow.expenses:
            continue
        share = _RATIO.divide(flow.expenses, expenses)
        if share >= CATEGORY_SHARE_LARGE:
            yield "large_category", f"{_percent(share)} of all spending is {name!r}"
        return  # the largest is enough


def _on_recurring(recurring: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    yearly = [yearly_amount(dict(payment)) for payment in recurring]
    costs = [amount for amount in yearly if amount < 0]
    income = add_exactly(*(amount for amount in yearly if amount > 0))
    total = add_exactly(*costs).copy_abs()
    if costs and income and _RATIO.divide(total, income) >= RECURRING_SHARE_LARGE:
        share = _percent(_RATIO.divide(total, income))
        yield "high_recurring_costs", f"{len(costs)} recurring payments take {share} of the recurring income"


def _percent(share: Decimal) -> str:
    return f"{_RATIO.multiply(share, _PERCENT).quantize(Decimal(1), context=_RATIO)} %"
