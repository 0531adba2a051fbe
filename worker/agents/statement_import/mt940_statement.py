"""Reads MT940 (SWIFT statements): the fields and their lines are split here, each booking is read by ``mt940``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from worker.agent_errors import InvalidInputError

from .csv_records import lines_of
from .statement_amounts import MoneyReader
from .statement_record import Entry, ImportedStatement, UnreadableCell, quote

_FIELD: Final = re.compile(r":([0-9]{2}[A-Z]?|NS):(.*)", re.DOTALL)
_FIRST_FIELD: Final = re.compile(r"^(?:\{4:\s*)?:(?:20|25)[A-Z]?:", re.MULTILINE)
# mt940 takes "45.60" for 45 and a reference, so the shape of a booking is checked first: the amount has a comma, and
# a letter (of the type) or nothing follows it.
_BOOKING: Final = re.compile(
    r"[0-9]{6}(?:[0-9]{4}| {4})?R?[DC][A-Z]?[\n ]?[0-9]{1,15}(?:,[0-9]*)?(?![0-9,.])(?=[A-Z]|\s|$)", re.IGNORECASE
)
_BALANCE: Final = re.compile(r"([CD])([0-9]{6})([A-Z]{3})([0-9]{1,15}(?:,[0-9]*)?)\s*")
_MONEY: Final = MoneyReader(mark=",")
_BOOKING_MAX_CHARS: Final = 1_000
_DETAILS_MAX_CHARS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Mt940Field:
    """A field, such as :61:, with the number of its first line."""

    line: int
    tag: str
    text: str


@dataclass(slots=True)
class _Mt940Account:
    """What the fields above a booking say: the account, the currency and the opening balance; ``moved`` is the sum."""

    name: str = ""
    currency: str | None = None
    opening: Decimal | None = None
    moved: Decimal = Decimal(0)
    is_whole: bool = True


def looks_like_mt940(text: str) -> bool:
    """Return whether a text has a :20: or :25: at the beginning of a line."""
    return _FIRST_FIELD.search(text) is not None


def read_mt940(text: str, statement: ImportedStatement) -> None:
    """Read all bookings of all statements in a text; raises InvalidInputError if there is no field of a statement."""
    fields = list(_fields_of(text))
    if not any(field.tag[:2] in {"60", "61", "62"} for field in fields):
        raise InvalidInputError("the MT940 has no statement: no balance (:60F:, :62F:) and no booking (:61:)")
    account = _Mt940Account()
    for number, field in enumerate(fields):
        if field.tag.startswith("20"):
            account = _Mt940Account()
        elif field.tag.startswith("25"):
            account.name = field.text.partition("\n")[0].strip()
        elif field.tag in {"60F", "60M"}:
            _open(account, field)
        elif field.tag in {"62F", "62M"}:
            _close(account, field, statement)
        elif field.tag == "61":
            details = fields[number + 1] if number + 1 < len(fields) and fields[number + 1].tag == "86" else None
            _book(account, field, details, statement)


def _fields_of(text: str) -> Iterator[Mt940Field]:
    tag, first, texts = "", 0, list[str]()
    for number, line in enumerate(lines_of(text), 1):
        found = _FIELD.match(line.removeprefix("{4:"))
        if found or line.strip() in {"-", "-}"} or line.startswith("{"):
            if tag:
                yield Mt940Field(first, tag, "\n".join(texts).rstrip())
            tag, first, texts = (found[1], number, [found[2]]) if found else ("", 0, [])
        elif tag:
            texts.append(line)
    if tag:
        yield Mt940Field(first, tag, "\n".join(texts).rstrip())


def _book(account: _Mt940Account, field: Mt940Field, details: Mt940Field | None, statement: ImportedStatement) -> None:
    try:
        values = _values_of(field, details)
        amount = values["amount"].amount
        # Reading it again checks the currency's decimal places.
        entry = Entry(
            line=field.line,
            booked_on=_booked_on(values, field, statement),
            amount=_MONEY.read(f"{amount:f}".replace(".", ","), account.currency),
            currency=account.currency,
            description=_description_of(values),
            account=account.name or None,
        )
    except UnreadableCell as error:
        account.is_whole = False
        statement.leave(field.line, str(error))
        return
    account.moved += entry.amount
    statement.add(entry)


def _values_of(field: Mt940Field, details: Mt940Field | None) -> dict[str, Any]:
    """Return what ``mt940`` reads in a booking and its details."""
    # Loaded here: only this format needs it, and it costs 9 MB.
    from mt940 import Options
    from mt940.models import Transactions

    # It logs whole lines of statements if it cannot read them.
    logging.getLogger("mt940").setLevel(logging.CRITICAL)
    if len(field.text) > _BOOKING_MAX_CHARS or not _BOOKING.match(field.text):
        raise UnreadableCell(f"the booking {quote(field.text)} is not built as :61: must be")
    text = f":61:{field.text}\n" + (f":86:{details.text[:_DETAILS_MAX_CHARS]}\n" if details else "")
    try:
        # Not mt940.parse, which opens a file if the text is the name of one.
        bookings = Transactions(options=Options.all()).parse(text)
    except (RuntimeError, ValueError, ArithmeticError, LookupError) as error:
        raise UnreadableCell(
            f"the booking {quote(field.text)} cannot be read: {error.args[0] if error.args else error}"
        ) from None
    if len(bookings) != 1:
        raise UnreadableCell(f"the booking {quote(field.text)} cannot be told from its details")
    return dict(bookings[0].data)


def _booked_on(values: dict[str, Any], field: Mt940Field, statement: ImportedStatement) -> date:
    found: date = values.get("entry_date") or values["date"]
    value_date: date = values["date"]
    if f"{value_date:%y%m%d}" != field.text[:6]:
        statement.note(
            f"the value date {quote(field.text[:6])} in line {field.line} is read as {value_date.isoformat()}"
        )
    return date(found.year, found.month, found.day)


def _description_of(values: dict[str, Any]) -> str:
    """Return the other party and the purpose; without a structured :86:, the whole of it."""
    texts = [values.get(name) for name in ("applicant_name", "purpose", "additional_purpose")]
    if not any(texts):
        texts = [values.get("transaction_details") or values.get("extra_details") or values.get("posting_text")]
    return " / ".join(str(text) for text in texts if text)


def _open(account: _Mt940Account, field: Mt940Field) -> None:
    if found := _BALANCE.fullmatch(field.text):
        account.currency = found[3]
        account.opening, account.moved, account.is_whole = _balance_of(found), Decimal(0), True


def _close(account: _Mt940Account, field: Mt940Field, statement: ImportedStatement) -> None:
    found = _BALANCE.fullmatch(field.text)
    if not found or account.opening is None or not account.is_whole:
        return
    closing = _balance_of(found)
    if closing is not None and account.opening + account.moved != closing:
        statement.note(
            f"the statement that ends in line {field.line} does not add up: {account.opening:f} and its bookings, "
            f"{account.moved:f}, are not the closing balance {closing:f}"
        )


def _balance_of(found: re.Match[str]) -> Decimal | None:
    try:
        value = _MONEY.read(found[4], found[3])
    except UnreadableCell:
        return None
    return -value if found[1] == "D" else value
