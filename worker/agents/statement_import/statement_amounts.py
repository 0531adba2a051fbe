"""Reads amounts of money as people and banks write them, as exact decimals; it never uses binary floats.

An amount is written with a decimal dot or comma, and groups of thousands by the other one, a space or an apostrophe.
"1.234" can be read with either mark: the amounts of the whole statement decide (``MoneyReader``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from .column_names import words
from .statement_record import UnreadableCell, quote

_CODE_CHARS: Final = 3
DIGITS_MAX: Final = 28
"""As many as a decimal of the default context keeps exactly."""
_PLACES_MAX: Final = 4
"""What is allowed if the currency is not known: no currency has more."""
_MINOR_UNITS: Final[Mapping[str, int]] = (
    dict.fromkeys(words("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"), 0)
    | dict.fromkeys(words("BHD IQD JOD KWD LYD OMR TND"), 3)
    | dict.fromkeys(words("CLF UYW"), 4)
)
"""The currencies of ISO 4217 that have no two minor digits."""
_SIGNS_OF_CURRENCIES: Final[Mapping[str, str | None]] = {
    "US$": "USD", "C$": "CAD", "CA$": "CAD", "A$": "AUD", "AU$": "AUD", "NZ$": "NZD", "R$": "BRL", "HK$": "HKD",
    "€": "EUR", "£": "GBP", "₹": "INR", "₩": "KRW", "₽": "RUB", "₺": "TRY", "₴": "UAH", "₫": "VND", "₪": "ILS",
    "zł": "PLN", "Kč": "CZK", "Fr.": "CHF", "Rs.": "INR", "Rs": "INR",
    "$": None, "¥": None, "kr.": None, "kr": None, "R": "ZAR",
}  # fmt: skip
_CURRENCY: Final = "|".join(re.escape(sign) for sign in sorted(_SIGNS_OF_CURRENCIES, key=len, reverse=True))
_BEFORE: Final = re.compile(rf"^(?:(?P<sign>[+-])|(?P<currency>[A-Z]{{3}}|{_CURRENCY}))\s*(?=[^A-Za-z])")
_AFTER: Final = re.compile(
    rf"(?<=[^A-Za-z])\s*(?:(?P<sign>[+-]|(?i:cr|dr)\.?|[CDSH])|(?P<currency>[A-Z]{{3}}|{_CURRENCY}))$"
)
_MINUS_SIGNS: Final = frozenset(("-", "DR", "D", "S"))
# "5'000.-" and "12,--" are whole amounts: the dashes stand for the cents and are no minus.
_NO_CENTS: Final = re.compile(r"(?<=[0-9])[.,]-{1,2}(?=$|[^0-9-])")
_LOOKALIKES: Final = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u2014": "-",
        "\u2019": "'",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "\u200e": None,
    }
)
_WRITTEN_WITH: Final = {
    ".": re.compile(
        r"(?:[0-9]+|[1-9][0-9]{0,2}([,' ])[0-9]{3}(?:\1[0-9]{3})*|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3})?(?:\.[0-9]*)?"
    ),
    ",": re.compile(r"(?:[0-9]+|[1-9][0-9]{0,2}([.' ])[0-9]{3}(?:\1[0-9]{3})*)?(?:,[0-9]*)?"),
}  # fmt: skip
"""The whole grammar by the decimal mark; the longest is that of lakhs, 1,23,456.00."""


@dataclass(frozen=True, slots=True)
class WrittenAmount:
    """An amount without its signs: ``body`` has digits and marks; ``sign`` is +1, -1, or 0 if none is written."""

    text: str
    body: str
    sign: int
    currency: str | None

    def readings(self) -> dict[str, Decimal]:
        """Return the value by each decimal mark with which the body can be read."""
        if self.body.isascii() and self.body.isdecimal():
            return dict.fromkeys(_WRITTEN_WITH, Decimal(self.body))
        readings = {}
        for mark, pattern in _WRITTEN_WITH.items():
            if pattern.fullmatch(self.body):
                whole, _, places = self.body.partition(mark)
                readings[mark] = Decimal(re.sub(r"[,.' ]", "", whole) + "." + places)
        return readings

    @property
    def shown_mark(self) -> str | None:
        """The decimal mark that this amount proves, if it can be read with one mark only."""
        readings = self.readings()
        return next(iter(readings)) if len(readings) == 1 else None


@dataclass(frozen=True, slots=True)
class MoneyReader:
    """Reads the amounts of one statement; ``mark`` is the decimal mark that the amounts prove, if they agree.

    Without one, "1.234" has a thousands group, unless its currency has three decimal places; if the amounts prove both
    marks, it cannot be read.
    """

    mark: str | None = None
    is_mixed: bool = False
    note: str = ""

    def read(self, text: str | Decimal, currency: str | None = None) -> Decimal:
        """Return the exact value; raises UnreadableCell with the reason. A JSON number is taken as it is."""
        if isinstance(text, Decimal):
            return within_minor_units(text, currency)
        written = parse_amount(text)
        readings = written.readings()
        currency = currency or written.currency
        return within_minor_units(self._choose(written, readings, currency), currency) * (written.sign or 1)

    def _choose(self, written: WrittenAmount, readings: Mapping[str, Decimal], currency: str | None) -> Decimal:
        if len(set(readings.values())) == 1:
            return next(iter(readings.values()))
        if self.mark is not None:
            return readings[self.mark]
        if self.is_mixed:
            raise UnreadableCell(
                f"the amount {quote(written.text)} can be read with a decimal dot and with a decimal comma, and other "
                "amounts use both"
            )
        return min(readings.values()) if minor_units_of(currency) == 3 else max(readings.values())  # noqa: PLR2004


def reader_of(texts: Iterable[str | Decimal]) -> MoneyReader:
    """Return the reader for all amounts of a statement: those that prove a decimal mark decide for the others."""
    marks, undecided = set(), ""
    for text in texts:
        if isinstance(text, Decimal):
            continue
        try:
            written = parse_amount(text)
        except UnreadableCell:
            continue
        if mark := written.shown_mark:
            marks.add(mark)
        elif len(set(written.readings().values())) > 1:
            undecided = undecided or text
    if len(marks) == 1:
        return MoneyReader(mark=marks.pop())
    if marks or not undecided:
        return MoneyReader(is_mixed=bool(marks))
    return MoneyReader(
        note=f"no amount shows the decimal mark: such as {quote(undecided)} are read with a thousands group, or with "
        "three decimal places if their currency has them"
    )


@lru_cache(maxsize=1024)
def parse_amount(text: str) -> WrittenAmount:
    """Take off signs, brackets and currency signs; raises UnreadableCell if the rest is no number."""
    body = _NO_CENTS.sub("", " ".join(text.translate(_LOOKALIKES).split()))
    signs, currencies = [], []
    # Twice, because a currency stands inside of the brackets or outside.
    for pattern in (_BEFORE, _AFTER) * 2:
        if body.startswith("(") and body.endswith(")"):
            signs.append("-")
            body = body[1:-1].strip()
        while found := pattern.search(body):
            if found["sign"]:
                signs.append(found["sign"].upper().rstrip("."))
            else:
                currencies.append(found["currency"])
            body = (body[: found.start()] + body[found.end() :]).strip()
    # Two signs may mean the same or cancel each other out: nobody can tell.
    if len(signs) > 1 or len(currencies) > 1:
        raise UnreadableCell(f"the amount {quote(text)} has more than one sign or currency")
    if len(body) > DIGITS_MAX or not re.search(r"[0-9]", body):
        raise UnreadableCell(f"{quote(text)} is not an amount")
    currency = _SIGNS_OF_CURRENCIES.get(currencies[0], currencies[0]) if currencies else None
    sign = 0 if not signs else -1 if signs[0] in _MINUS_SIGNS else 1
    written = WrittenAmount(text, body, sign, currency)
    if not written.readings():
        raise UnreadableCell(f"{quote(text)} is not an amount")
    return written


def within_minor_units(value: Decimal, currency: str | None) -> Decimal:
    """Return the value without zeros at its end; raises UnreadableCell if it has more places than its currency."""
    places_max = _PLACES_MAX if currency is None else minor_units_of(currency)
    if (
        not value.is_finite()
        or not -DIGITS_MAX <= value.adjusted() <= DIGITS_MAX
        or len(value.as_tuple().digits) > DIGITS_MAX
    ):
        raise UnreadableCell(f"{quote(value)} is not an amount of money")
    shortest = value.normalize()
    exponent = shortest.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > places_max:
        raise UnreadableCell(f"{value:f} has more decimal places than {currency or 'money'} has ({places_max})")
    return shortest


def currency_code_of(text: str) -> str | None:
    """Return the code of a currency that is named by its code or its sign; None if it is neither."""
    code = text.strip().upper()
    if len(code) == _CODE_CHARS and code.isascii() and code.isalpha():
        return code
    return _SIGNS_OF_CURRENCIES.get(text.strip())


def minor_units_of(currency: str | None) -> int:
    """Return how many decimal places a currency has, by ISO 4217."""
    return _MINOR_UNITS.get(currency or "", 2)


def from_minor_units(value: Decimal, currency: str | None) -> Decimal:
    """Return an amount in whole units from one in cents; raises UnreadableCell if it has no currency or a fraction."""
    if currency is None:
        raise UnreadableCell("the amount is in minor units, and no currency says how many make a whole")
    if value != value.to_integral_value():
        raise UnreadableCell(f"{value} is not a whole number of minor units")
    return value.scaleb(-minor_units_of(currency))


def is_blank(text: str | Decimal | None) -> bool:
    """Return whether a cell has no amount: it is empty, or a dash."""
    return text is None or (isinstance(text, str) and text.translate(_LOOKALIKES).strip() in {"", "-", "--"})
