"""Reads amounts and dates as providers write them, exactly; what can be read in two ways is refused, never guessed."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from worker.money import AMOUNT_MAX

from .minor_units import decimals_of

_TEXT_MAX: Final = 64
_DECIMALS_MAX: Final = 20
_UNIFY: Final = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{NO-BREAK SPACE}": " ",
        "\N{NARROW NO-BREAK SPACE}": " ",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    }
)
_SIGNED: Final = re.compile(r"(?P<before>[+-]?) ?(?P<digits>[0-9.,' ]*[0-9]) ?(?P<after>[+-]?)", re.ASCII)
_GROUPED: Final = re.compile(r"[0-9]{1,3}(?:(?P<separator>[.,' ])[0-9]{3})(?:(?P=separator)[0-9]{3})*", re.ASCII)
_INDIAN_GROUPS: Final = re.compile(r"[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}", re.ASCII)
_AMBIGUOUS_WHOLE: Final = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_GROUP_DIGITS: Final = 3


class Unreadable(ValueError):
    """A part of a transaction that cannot be read; the text says why."""


def amount_of(value: Any, currency: str, *, is_minor: bool = False) -> Decimal:
    """Return an amount exactly: a JSON number, or a text such as ``1.234,50``, ``(12.50)`` or ``12-``.

    With ``is_minor`` it is a whole number of the currency's minor units (cents). Raises Unreadable.
    """
    amount = _text_amount(value, currency, is_minor=is_minor) if isinstance(value, str) else _number(value)
    if not amount.is_finite() or amount.copy_abs() > AMOUNT_MAX:
        raise Unreadable(f"amount must be a finite number within ±{AMOUNT_MAX:,}")
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_DECIMALS_MAX:
        raise Unreadable(f"amount has more than {_DECIMALS_MAX} decimals")
    return _from_minor_units(amount, currency) if is_minor else amount


def date_of(value: Any) -> tuple[str, date]:
    """Return a date or a moment in ISO 8601, and its calendar day as it was written; raises Unreadable.

    The day is that of the moment's own offset: a payment at 23:30-05:00 belongs to the day on which it was made.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not 0 < len(text) <= _TEXT_MAX:
        raise Unreadable(f"date must be an ISO 8601 text such as 2026-01-31, not {_shown(value)}")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Unreadable(f"date {_shown(value)} is not ISO 8601, such as 2026-01-31 or 2026-01-31T09:30:00Z") from error
    has_time = len(text) > len("2026-01-31")
    return (moment.isoformat() if has_time else moment.date().isoformat()), moment.date()


def _number(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Unreadable(f"amount must be a number or a text, not {_shown(value)}")
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _from_minor_units(amount: Decimal, currency: str) -> Decimal:
    if not currency:
        raise Unreadable("an amount in minor units needs a currency")
    if amount != amount.to_integral_value():
        raise Unreadable(f"an amount in minor units must be a whole number, not {amount}")
    sign, digits, exponent = amount.as_tuple()
    return Decimal((sign, digits, int(exponent) - decimals_of(currency)))


def _text_amount(value: str, currency: str, *, is_minor: bool) -> Decimal:
    text = value.strip().translate(_UNIFY)
    in_brackets = text.startswith("(") and text.endswith(")")
    found = _SIGNED.fullmatch(text[1:-1].strip() if in_brackets else text) if len(text) <= _TEXT_MAX else None
    if found is None or sum(map(bool, (found["before"], found["after"], in_brackets))) > 1:
        raise Unreadable(f"amount {_shown(value)} is not a number")
    whole, fraction = _split(found["digits"].strip(), 0 if is_minor else None, currency)
    if fraction and not fraction.isdigit():
        raise Unreadable(f"amount {_shown(value)} is not a number")
    is_negative = in_brackets or "-" in (found["before"], found["after"])
    return Decimal(f"{'-' if is_negative else ''}{_without_groups(whole, value)}.{fraction or 0}")


def _split(digits: str, minor_decimals: int | None, currency: str) -> tuple[str, str]:
    """Split into the whole part, still with its group separators, and the decimals."""
    separators = [character for character in digits if character in ".,"]
    if not separators or (len(separators) > 1 and len(set(separators)) == 1):
        return digits, ""
    whole, separator, tail = digits.rpartition(separators[-1])
    if len(separators) == 1 and len(tail) == _GROUP_DIGITS and _AMBIGUOUS_WHOLE.fullmatch(whole):
        decimals = minor_decimals if minor_decimals is not None else decimals_of(currency)
        is_decimal_point = separator == "." and bool(currency) and decimals == _GROUP_DIGITS
        is_group = separator == "," and bool(currency) and decimals != _GROUP_DIGITS
        if not is_decimal_point and not is_group:
            raise Unreadable(
                f"amount {digits!r} is ambiguous: {separator!r} may stand before thousands or before decimals"
            )
        if is_group:
            return digits, ""
    return whole or "0", tail


def _without_groups(whole: str, value: str) -> str:
    if whole.isdigit():
        return whole
    if not _GROUPED.fullmatch(whole) and not _INDIAN_GROUPS.fullmatch(whole):
        raise Unreadable(f"amount {_shown(value)} is not a number: its groups of digits are irregular")
    return re.sub(r"[.,' ]", "", whole)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    text = repr(value[:_TEXT_MAX]) if isinstance(value, str) else str(value)
    text = text if isinstance(value, str | int | float | Decimal) else f"a {type(value).__name__}"
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
