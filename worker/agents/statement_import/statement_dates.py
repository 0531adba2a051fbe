"""Reads dates as banks write them; what "3/4/2026" means is decided for the whole statement, not date by date.

The order of day and month is, by the first rule that decides: what the caller says (``date_order``); a date of the
statement that only one order can read (a day above 12); day first if the headers are not English, the amounts have a
decimal comma, or the currency is of a country that writes so; the only order in which the dates only rise or only fall;
the order in which they lie within less than half of the time; month first if the amounts are dollars; day first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final

from .statement_record import UnreadableCell, quote

_TIME: Final = r"(?:(?:[T,]| )\s*[0-9]{1,2}[:.h][0-9]{2}.{0,40})?"
_YEAR_FIRST: Final = re.compile(r"([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})" + _TIME)
_COMPACT: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:[0-9]{4,6})?(?:[.[].{0,20})?")
_NUMERIC: Final = re.compile(r"([0-9]{1,2})([./-])([0-9]{1,2})\2([0-9]{4}|[0-9]{2})" + _TIME)
_DAY_NAMED: Final = re.compile(
    r"([0-9]{1,2})(?:st|nd|rd|th|er)?[ .\-/]*([a-z]{3,10})[ .,\-/]*([0-9]{4}|[0-9]{2})" + _TIME
)
_NAMED_DAY: Final = re.compile(r"([a-z]{3,10})\.? *([0-9]{1,2})(?:st|nd|rd|th)?,? +([0-9]{4})" + _TIME)
_EPOCH: Final = re.compile(r"[0-9]{10}(?:[0-9]{3})?")
_MONTHS: Final = (
    "jan ene gen", "feb fev", "mar mrz mrt maa mae", "apr avr abr", "mai may mei mag", "jun juin giu",
    "jul juil lug", "aug aou ago", "sep set", "okt oct ott out", "nov", "dec dez dic des",
)  # fmt: skip
"""How the names of the months begin in English, German, French, Dutch, Spanish, Italian and Portuguese."""
_MONTH_OF: Final = {stem: number for number, stems in enumerate(_MONTHS, 1) for stem in stems.split()}
_YEARS: Final = range(1950, 2200)
_MILLISECONDS_DIGITS: Final = 13
_EPOCH_DIGITS_MAX: Final = 20
ORDERS: Final = ("dmy", "mdy")


@dataclass(frozen=True, slots=True)
class WrittenDate:
    """A date as it is written: known, or two numbers and a year whose order must be decided."""

    text: str
    known: date | None = None
    numbers: tuple[int, int, int] | None = None

    def by(self, order: str) -> date | None:
        """Return the date in an order, dmy or mdy; None if there is no such date."""
        if self.numbers is None:
            return self.known
        first, second, year = self.numbers
        return _date_or_none(year, second, first) if order == "dmy" else _date_or_none(year, first, second)


@dataclass(frozen=True, slots=True)
class DateReader:
    """Reads the dates of one statement; ``order`` is dmy, mdy or None if the dates prove both."""

    order: str | None
    note: str = ""

    def read(self, text: str) -> date:
        """Return the date; raises UnreadableCell with the reason."""
        written = parse_date(text)
        readings = [written.by(order) for order in ORDERS] if self.order is None else [written.by(self.order)]
        dates = {found for found in readings if found is not None}
        if len(dates) == 1:
            return dates.pop()
        if dates:
            raise UnreadableCell(
                f"the date {quote(text)} can be read with the day first and with the month first, and other dates "
                "prove both: say date_order"
            )
        raise UnreadableCell(
            f"{quote(text)} is not a date" + (f" in the order {self.order}" if written.numbers else "")
        )


def date_reader_of(
    columns: Sequence[Sequence[str]],
    *,
    date_order: str = "auto",
    is_day_first: bool = False,
    is_in_dollars: bool = False,
) -> DateReader:
    """Return the reader for all columns of dates of a statement, with a note if its order had to be decided."""
    dates = [[written for text in texts if (written := _written_or_none(text)) is not None] for texts in columns]
    undecided = [written for column in dates for written in column if written.by("dmy") != written.by("mdy")]
    if not undecided:
        return DateReader("dmy")
    proven = {order for written in undecided if (order := _proven_order(written)) is not None}
    if date_order not in ORDERS and len(proven) > 1:
        return DateReader(None, "some dates have the day first and some the month first")
    if date_order not in ORDERS and proven:
        return DateReader(proven.pop())
    order, reason = _assumed_order(dates, date_order, is_day_first, is_in_dollars)
    found = undecided[0].by(order)
    return DateReader(order, f"dates such as {quote(undecided[0].text)} are read as {found or 'no date'}, {reason}")


def _assumed_order(
    columns: Sequence[Sequence[WrittenDate]], date_order: str, is_day_first: bool, is_in_dollars: bool
) -> tuple[str, str]:
    """Return the order of dates that prove none, and why."""
    if date_order in ORDERS:
        return date_order, "as date_order says"
    if is_day_first:
        return "dmy", "day first, by the language of the headers, the decimal comma or the currency"
    found = {order: [[written.by(order) for written in column] for column in columns] for order in ORDERS}
    sorted_in = [order for order in ORDERS if all(map(_is_sorted, found[order]))]
    if len(sorted_in) == 1:
        return sorted_in[0], "because only so the dates are in order"
    spans = sorted((_days_within(found[order]), order) for order in ORDERS)
    if spans[0][0] * 2 < spans[1][0]:
        return spans[0][1], "because so the dates lie closer together"
    if is_in_dollars:
        return "mdy", "month first, because the amounts are in dollars"
    return "dmy", "day first, because nothing says otherwise; date_order can"


@lru_cache(maxsize=1024)
def parse_date(text: str) -> WrittenDate:
    """Return a date as it is written; raises UnreadableCell if it is none."""
    plain = " ".join(text.split())
    if found := _YEAR_FIRST.fullmatch(plain) or _COMPACT.fullmatch(plain):
        known = _date_or_none(int(found[1]), int(found[2]), int(found[3]))
        if known is not None:
            return WrittenDate(text, known)
    if found := _NUMERIC.fullmatch(plain):
        numbers = (int(found[1]), int(found[3]), _year_of(found[4]))
        # With dots the day is first everywhere.
        if found[2] == ".":
            return _known(text, WrittenDate(text, None, numbers).by("dmy"))
        return WrittenDate(text, None, numbers)
    if known := _named_date(plain) or _epoch_date(plain):
        return WrittenDate(text, known)
    raise UnreadableCell(f"{quote(text)} is not a date")


def _known(text: str, found: date | None) -> WrittenDate:
    if found is None:
        raise UnreadableCell(f"there is no date {quote(text)}")
    return WrittenDate(text, found)


def _named_date(plain: str) -> date | None:
    name = "".join(char for char in unicodedata.normalize("NFKD", plain.casefold()) if not unicodedata.combining(char))
    if found := _DAY_NAMED.fullmatch(name):
        day, month, year = found[1], found[2], found[3]
    elif found := _NAMED_DAY.fullmatch(name):
        month, day, year = found[1], found[2], found[3]
    else:
        return None
    number = _MONTH_OF.get(month[:4]) or _MONTH_OF.get(month[:3])
    return _date_or_none(_year_of(year), number, int(day)) if number else None


def _epoch_date(plain: str) -> date | None:
    """Return the day, in UTC, of a Unix time in seconds or milliseconds."""
    if not _EPOCH.fullmatch(plain):
        return None
    seconds = int(plain) // (1000 if len(plain) == _MILLISECONDS_DIGITS else 1)
    return datetime.fromtimestamp(seconds, UTC).date()


def _written_or_none(text: str) -> WrittenDate | None:
    try:
        return parse_date(text)
    except UnreadableCell:
        return None


def _proven_order(written: WrittenDate) -> str | None:
    """Return the only order in which there is such a date; None if both or none can be."""
    possible = [order for order in ORDERS if written.by(order) is not None]
    return possible[0] if len(possible) == 1 else None


def _is_sorted(dates: Sequence[date | None]) -> bool:
    known = [found for found in dates if found is not None]
    return known in (sorted(known), sorted(known, reverse=True))


def _days_within(columns: Sequence[Sequence[date | None]]) -> int:
    days = [found.toordinal() for column in columns for found in column if found is not None]
    return max(days, default=0) - min(days, default=0)


def _year_of(digits: str) -> int:
    return int(digits) + (2000 if len(digits) == 2 else 0)  # noqa: PLR2004


def _date_or_none(year: int, month: int, day: int) -> date | None:
    try:
        found = date(year, month, day)
    except ValueError:
        return None
    return found if year in _YEARS else None


def text_of_moment(value: str | Decimal) -> str:
    """Return a cell as the text of a date; a JSON number is a Unix time or a date such as 20260131."""
    if isinstance(value, str):
        return value
    # The exponent is looked at first: 1e999999999 written out would fill the memory.
    return f"{value:f}".partition(".")[0] if value.is_finite() and 0 <= value.adjusted() < _EPOCH_DIGITS_MAX else ""
