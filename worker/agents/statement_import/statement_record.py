"""Collects what an import finds: transactions, what could not be read, and notes on what was decided."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final

import orjson

from worker.money import AMOUNT_MAX

LISTED_MAX: Final = 10_000
LISTED_MAX_BYTES: Final = 3 * 1024 * 1024
"""What the transactions take as JSON, so that the whole output stays below the 4 MiB of a step."""
UNREAD_MAX: Final = 1_000
NOTES_MAX: Final = 50
TEXT_MAX_CHARS: Final = 500
_ID_MAX_CHARS: Final = 100
_QUOTE_MAX_CHARS: Final = 60
# What banks write where they have no reference; two movements that have it are no repetition.
_NO_IDS: Final = frozenset(("NONREF", "NOTPROVIDED", "NOT PROVIDED", "N/A", "NA", "NONE", "NULL", "UNKNOWN"))
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028\u2029\ufeff]+")


class UnreadableCell(ValueError):
    """A value cannot be read; the message is the reason, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A transaction as it stands in the statement; ``line`` is where, ``bank_id`` is the bank's own id."""

    line: int
    booked_on: date
    amount: Decimal
    currency: str | None = None
    description: str = ""
    bank_id: str | None = None
    account: str | None = None
    balance: Decimal | None = None


@dataclass(slots=True)
class ImportedStatement:
    """What was read so far; ``place`` is what a line number counts: lines of the text, or objects of a list."""

    place: str = "line"
    count: int = 0
    transactions: list[dict[str, Any]] = field(default_factory=list)
    unread: list[dict[str, Any]] = field(default_factory=list)
    unread_count: int = 0
    notes: list[str] = field(default_factory=list)
    _listed_bytes: int = 0
    _is_full: bool = False
    _by_bank_id: dict[tuple[str | None, str], tuple[Entry, int]] = field(default_factory=dict)
    _ids: dict[str, int] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """List a transaction, unless the bank's id says that it is here already."""
        try:
            numbers = {"amount": _to_json_number(entry.amount)}
            if entry.balance is not None:
                numbers["balance"] = _to_json_number(entry.balance)
        except UnreadableCell as error:
            self.leave(entry.line, str(error))
            return
        identity = self._identity_of(entry)
        if identity is None:
            return
        self.count += 1
        details = {"currency": entry.currency, "account": clean(entry.account or "")}
        transaction = {
            "id": identity,
            "date": entry.booked_on.isoformat(),
            "description": shorten(clean(entry.description), TEXT_MAX_CHARS),
            "type": "expense" if entry.amount < 0 else "income",
            **{name: shorten(value, _ID_MAX_CHARS) for name, value in details.items() if value},
            **numbers,
        }
        self._list(transaction)

    def leave(self, line: int, reason: str) -> None:
        """Record what could not be read, and why."""
        self.unread_count += 1
        if len(self.unread) < UNREAD_MAX:
            self.unread.append({"line": line, "reason": shorten(clean(reason), TEXT_MAX_CHARS)})

    def note(self, text: str) -> None:
        """Record what was decided; the same note is kept once."""
        text = shorten(clean(text), TEXT_MAX_CHARS)
        if text not in self.notes and len(self.notes) < NOTES_MAX:
            self.notes.append(text)

    def _list(self, transaction: dict[str, Any]) -> None:
        # Once one did not fit no later one is listed, so that what is listed is the statement's beginning.
        size_bytes = len(orjson.dumps(transaction)) + 1
        self._is_full |= len(self.transactions) >= LISTED_MAX or self._listed_bytes + size_bytes > LISTED_MAX_BYTES
        if not self._is_full:
            self._listed_bytes += size_bytes
            self.transactions.append(transaction)

    def _identity_of(self, entry: Entry) -> str | None:
        """Return an id that no other transaction of the statement has; None if this one is here already."""
        bank_id = clean(entry.bank_id or "")
        if not re.search(r"[1-9A-Za-z]", bank_id) or bank_id.upper() in _NO_IDS:
            return self._unique(_made_up_id(entry))
        first, times = self._by_bank_id.get((entry.account, bank_id), (entry, 0))
        self._by_bank_id[entry.account, bank_id] = (first, times + 1)
        if not times:
            return self._unique(bank_id if len(bank_id) <= _ID_MAX_CHARS else _digest(bank_id))
        if (first.booked_on, first.amount, first.currency) == (entry.booked_on, entry.amount, entry.currency):
            self.leave(entry.line, f"a duplicate of {self.place} {first.line}: the same id, {quote(bank_id)}")
            return None
        self.note(
            f"the id {quote(bank_id)} of {self.place} {first.line} comes again with another date or amount, "
            f"in {self.place} {entry.line}: both are listed"
        )
        return self._unique(bank_id[:_ID_MAX_CHARS])

    def _unique(self, identity: str) -> str:
        unique = identity
        # The number goes on where it was: a search from 2 on would be slow for many equal lines.
        while unique in self._ids:
            self._ids[identity] += 1
            unique = f"{identity}-{self._ids[identity]}"
        self._ids[unique] = 1
        return unique


def clean(text: str) -> str:
    """Return the text on one line: each run of white space and control characters becomes one space."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _UNPRINTABLE.sub(" ", text).strip()


def shorten(text: str, max_chars: int) -> str:
    """Return the text, cut with an ellipsis if it is longer than ``max_chars``."""
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def quote(value: object) -> str:
    """Return a value as it is shown in a reason: in quotes, on one line, and short."""
    return f"'{shorten(clean(str(value)), _QUOTE_MAX_CHARS)}'"


def _made_up_id(entry: Entry) -> str:
    """Return an id made of the content, the same whenever the same statement is read."""
    parts = (entry.account, entry.booked_on, entry.amount, entry.currency, clean(entry.description), entry.balance)
    return _digest("\x1f".join(map(str, parts)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _to_json_number(amount: Decimal) -> int | float:
    """Return an amount as the JSON number that tells it exactly; raises UnreadableCell if there is none."""
    if amount.copy_abs() > AMOUNT_MAX:
        raise UnreadableCell(f"an amount must lie within ±{AMOUNT_MAX:,}")
    if amount == amount.to_integral_value():
        return int(amount)
    number = float(amount)
    if Decimal(repr(number)) != amount:
        raise UnreadableCell(f"{amount} has more digits than a JSON number can tell")
    return number
