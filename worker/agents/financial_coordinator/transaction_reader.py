"""Reads transactions of a provider or of the ledger into one checked form; what cannot be read is counted and told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final

from worker.agent_errors import PermanentError
from worker.money import with_direction

from .minor_units import CURRENCY_PATTERN, decimals_of
from .provider_amounts import Unreadable, amount_of, date_of

TRANSACTIONS_MAX: Final = 500_000
"""Transactions of one account in one reading: what a worker's memory bears."""
TOLD_MAX: Final = 100
_ID_MAX: Final = 200
_INT64: Final = range(-(2**63), 2**63)
_TEXT_MAX: Final = {"description": 1_000, "payee": 200, "category": 64, "type": 64, "account": 64}
_FIELDS: Final = ("payee", "category", "account")
_WHITE_SPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class CheckedTransaction:
    """A transaction whose every part was read; ``amount`` is negative for money out, ``currency`` "" if undeclared."""

    id: str | int
    amount: Decimal
    currency: str
    day: date | None
    date: str
    texts: Mapping[str, str]

    @property
    def payee(self) -> str:
        """Return who was paid or paid: the payee, else the description; "" if there is neither."""
        return self.texts["payee"] or self.texts["description"]

    def to_json(self) -> dict[str, Any]:
        """Return it as an entry of a list: ``{id, amount, description, type}`` and the other parts that it has."""
        optional = {"currency": self.currency, "date": self.date} | {name: self.texts[name] for name in _FIELDS}
        return {
            "id": self.id,
            "amount": _json_number_of(self.amount, self.currency),
            "description": self.texts["description"],
            "type": self.texts["type"] or ("expense" if self.amount < 0 else "income"),
            **{name: value for name, value in optional.items() if value},
        }


@dataclass(slots=True)
class ReadingNotes:
    """What a reading left out: how many, and the first of them."""

    unread_count: int = 0
    duplicate_count: int = 0
    unread: list[dict[str, Any]] = field(default_factory=list)
    duplicates: list[dict[str, Any]] = field(default_factory=list)

    def add_unread(self, reason: str, **where: Any) -> None:
        """Count something that cannot be read, and keep it if it is one of the first."""
        self.unread_count += 1
        if len(self.unread) < TOLD_MAX:
            self.unread.append({**where, "reason": reason[:300]})

    def add_duplicate(self, **where: Any) -> None:
        """Count a transaction that came twice, and keep it if it is one of the first."""
        self.duplicate_count += 1
        if len(self.duplicates) < TOLD_MAX:
            self.duplicates.append(where)

    def merge(self, other: ReadingNotes) -> None:
        """Add the notes of another reading."""
        self.unread_count += other.unread_count
        self.duplicate_count += other.duplicate_count
        self.unread = (self.unread + other.unread)[:TOLD_MAX]
        self.duplicates = (self.duplicates + other.duplicates)[:TOLD_MAX]

    def to_json(self) -> dict[str, Any]:
        """Return the notes as a part of an output."""
        return {
            "unread": {"count": self.unread_count, "entries": self.unread},
            "duplicates": {"count": self.duplicate_count, "entries": self.duplicates},
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ReadingNotes:
        """Build the notes that :meth:`to_json` returned."""
        unread, duplicates = raw["unread"], raw["duplicates"]
        return cls(unread["count"], duplicates["count"], list(unread["entries"]), list(duplicates["entries"]))


class TransactionReader:
    """Reads the transactions of one account, or of all if ``account`` is None; ``""`` means those of no account."""

    def __init__(self, notes: ReadingNotes, account: str | None = None) -> None:
        self._notes = notes
        self._account = account
        self._hash_by_id: dict[str, int] = {}

    def read(self, raw_transactions: Iterable[Any]) -> Iterator[CheckedTransaction]:
        """Yield each transaction once; raises PermanentError if there are too many to read."""
        for number, raw in enumerate(raw_transactions):
            if number >= TRANSACTIONS_MAX:
                raise PermanentError(f"there are over {TRANSACTIONS_MAX:,} transactions: read fewer accounts at once")
            where = self._where(number, raw)
            try:
                transaction = read_transaction(raw)
                is_new = self._is_new(transaction)
                self._check_account(transaction)
            except Unreadable as error:
                self._notes.add_unread(str(error), **where)
                continue
            if not is_new:
                self._notes.add_duplicate(**where)
            elif self._account != "" or not transaction.texts["account"]:
                yield transaction

    def _is_new(self, transaction: CheckedTransaction) -> bool:
        known = len(self._hash_by_id)
        key, content = str(transaction.id), hash((transaction.amount, transaction.currency, transaction.date))
        first = self._hash_by_id.setdefault(key, content)
        if first != content:
            raise Unreadable("the id was used before, with another amount, currency or date")
        return len(self._hash_by_id) > known

    def _check_account(self, transaction: CheckedTransaction) -> None:
        owner = transaction.texts["account"]
        if self._account and owner and owner != self._account:
            raise Unreadable(f"it belongs to the account {owner!r}, and {self._account!r} was asked for")

    def _where(self, number: int, raw: Any) -> dict[str, Any]:
        raw_id = raw.get("id") if isinstance(raw, Mapping) else None
        where: dict[str, Any] = {"account": self._account} if self._account else {}
        if isinstance(raw_id, str | int) and not isinstance(raw_id, bool):
            return {**where, "id": clean_text(str(raw_id))[:_ID_MAX]}
        return {**where, "number": number}


def read_transaction(raw: Any) -> CheckedTransaction:
    """Return a checked transaction; raises Unreadable with the first part of it that cannot be read."""
    if not isinstance(raw, Mapping):
        raise Unreadable(f"a transaction must be an object, not a {type(raw).__name__}")
    currency = currency_of(raw.get("currency"))
    texts = {name: _text_of(raw, name) for name in _TEXT_MAX}
    date_text, day = ("", None) if raw.get("date") is None else date_of(raw["date"])
    return CheckedTransaction(
        id=_id_of(raw.get("id")),
        amount=with_direction(_amount_of(raw, currency), texts["type"]),
        currency=currency,
        day=day,
        date=date_text,
        texts=texts,
    )


def currency_of(value: Any) -> str:
    """Return a currency's code in capitals, "" for none; raises Unreadable."""
    if value is None or value == "":
        return ""
    code = value.strip().upper() if isinstance(value, str) else ""
    if not CURRENCY_PATTERN.fullmatch(code):
        raise Unreadable("currency must be a code of three letters such as EUR")
    return code


def clean_text(text: str) -> str:
    """Return a text on one line that every store accepts."""
    storable = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")
    return _WHITE_SPACE.sub(" ", storable).strip()


def _amount_of(raw: Mapping[str, Any], currency: str) -> Decimal:
    unit = raw.get("unit")
    if unit not in (None, "major", "minor"):
        raise Unreadable('unit must be "major" or "minor"')
    if ("amount" in raw) == ("amount_minor" in raw):
        raise Unreadable("a transaction needs amount or amount_minor, and not both")
    if "amount_minor" in raw:
        return amount_of(raw["amount_minor"], currency, is_minor=True)
    return amount_of(raw["amount"], currency, is_minor=unit == "minor")


def _id_of(value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Unreadable("a transaction needs an id, a text or a whole number")
    if isinstance(value, int):
        return value if value in _INT64 else str(value)
    text = clean_text(value)
    if not 0 < len(text) <= _ID_MAX:
        raise Unreadable(f"an id has 1 to {_ID_MAX} characters")
    return text


def _text_of(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"{name} must be a text, not a {type(value).__name__}")
    text, longest = clean_text(value[: 2 * _TEXT_MAX[name]]), _TEXT_MAX[name]
    if name == "account" and len(value) > longest:  # a shortened one could be another's name
        raise Unreadable(f"an account's name has at most {longest} characters")
    return text[:longest]


def _json_number_of(amount: Decimal, currency: str) -> int | float:
    if amount == amount.to_integral_value():
        return int(amount)
    number = float(amount)
    # A double tells 15 digits; an amount with more is told to the minor unit.
    return number if Decimal(repr(number)) == amount else round(number, decimals_of(currency))
