"""Forecasts the next three months of a currency by the mean of its newest complete months; says so in words."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from .account_figures import EARLIER, Flow

MONTHS_USED_MAX: Final = 6
MONTHS_USED_MIN: Final = 2
MONTHS_AHEAD: Final = 3
METHOD: Final = (
    "each month is expected to be the mean of the newest complete months, at most six; the newest month with a "
    "transaction counts as not complete, and a month without transactions as zero"
)
_DIVISION: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_MONTHS_A_YEAR: Final = 12


def forecast_of(months: Mapping[str, Flow], currency: str) -> dict[str, Any] | None:
    """Return ``{months_used, months: [{month, income, expenses, net}]}``; None if there are too few months."""
    names = sorted(name for name in months if name != EARLIER)
    if not names:
        return None
    newest = _index_of(names[-1])
    used = min(newest - _index_of(names[0]), MONTHS_USED_MAX)
    if used < MONTHS_USED_MIN:
        return None
    total = Flow()
    for index in range(newest - used, newest):
        total.merge(months.get(_name_of(index), Flow()))
    mean = Flow(_DIVISION.divide(total.income, Decimal(used)), _DIVISION.divide(total.expenses, Decimal(used)))
    ahead = [_name_of(index) for index in range(newest + 1, newest + 1 + MONTHS_AHEAD)]
    return {"months_used": used, "months": [{"month": name, **mean.to_json(currency)} for name in ahead]}


def _index_of(month: str) -> int:
    return int(month[:4]) * _MONTHS_A_YEAR + int(month[5:]) - 1


def _name_of(index: int) -> str:
    return f"{index // _MONTHS_A_YEAR:04}-{index % _MONTHS_A_YEAR + 1:02}"
