"""Reads OFX and QFX: SGML of OFX 1, whose values have no end tags, and XML of OFX 2, by one tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from typing import Final

from worker.agent_errors import InvalidInputError

from .statement_amounts import MoneyReader, reader_of
from .statement_dates import parse_date
from .statement_record import Entry, ImportedStatement, UnreadableCell, quote

_TOKEN: Final = re.compile(r"<(/?)([A-Za-z0-9_.]{1,40})\s*(/?)>([^<]*)")
_CDATA: Final = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_HOSTILE: Final = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
TRANSACTIONS_MAX: Final = 100_000
_AGGREGATES: Final = frozenset(("CURRENCY", "ORIGCURRENCY", "BANKACCTTO", "CCACCTTO"))
"""Aggregates of a transaction whose values are not its own: another currency, the other side's account."""
_STATEMENTS: Final = frozenset(("STMTRS", "CCSTMTRS", "INVSTMTRS", "BANKTRANLIST", "INVTRANLIST", "STMTTRN"))


@dataclass(slots=True)
class _OfxTransaction:
    """One STMTTRN: its line, its account, and its values by tag; the first value of a tag counts."""

    line: int
    account: str
    currency: str
    values: dict[str, str] = field(default_factory=dict)
    is_closed: bool = False


def read_ofx(text: str, statement: ImportedStatement) -> None:
    """Read the transactions of all accounts in a file; raises InvalidInputError if there is no statement in it."""
    if _HOSTILE.search(text):
        raise InvalidInputError(
            "the OFX has a document type or entities (DOCTYPE, ENTITY), which statements never have"
        )
    if "<!" in text:
        text = _CDATA.sub(lambda found: found[1].replace("&", "&amp;").replace("<", "&lt;"), text)
    reader = _OfxReader(statement)
    for token in _tokens_of(text):
        reader.take(*token)
    if not reader.has_statement:
        raise InvalidInputError("the OFX has no statement: neither STMTRS nor CCSTMTRS nor a list of transactions")
    transactions = reader.transactions
    money = reader_of(transaction.values.get("TRNAMT", "") for transaction in transactions)
    if money.note:
        # OFX has no groups of thousands: a single mark is the decimal one, whatever stands behind it.
        money = MoneyReader(mark="," if any("," in each.values.get("TRNAMT", "") for each in transactions) else ".")
    for number, transaction in enumerate(transactions, 1):
        try:
            statement.add(_entry_of(transaction, money))
        except UnreadableCell as error:
            statement.leave(transaction.line, f"transaction {number}: {error}")


@dataclass(slots=True)
class _OfxReader:
    """Gathers the values of each transaction; ``account`` and ``currency`` are those of the statement at hand."""

    statement: ImportedStatement
    account: str = ""
    currency: str = ""
    aggregate: str = ""
    current: _OfxTransaction | None = None
    transactions: list[_OfxTransaction] = field(default_factory=list)
    has_statement: bool = False

    def take(self, line: int, tag: str, is_end: bool, value: str) -> None:
        """Take a tag: one of the aggregates that count, or a value."""
        self.has_statement |= tag in _STATEMENTS
        if tag == "STMTTRN":
            if self.current is not None:
                self.current.is_closed = is_end
            self.current, self.aggregate = None, ""
            if not is_end:
                self.current = _OfxTransaction(line, self.account, self.currency)
                self.transactions.append(self.current)
            if len(self.transactions) > TRANSACTIONS_MAX:
                raise InvalidInputError(f"the OFX has more than {TRANSACTIONS_MAX:,} transactions: split it")
        elif tag in _AGGREGATES:
            self.aggregate = "" if is_end else tag
        elif not is_end and self.current is not None:
            if value:
                self.current.values.setdefault(f"{self.aggregate}.{tag}".lstrip("."), value)
        elif not is_end:
            self._take_outside(line, tag, value)

    def _take_outside(self, line: int, tag: str, value: str) -> None:
        if tag == "ACCTID":
            self.account = value
        elif tag == "CURDEF":
            self.currency = value.upper()
        elif tag == "INVTRAN":
            self.statement.leave(line, "a transaction in securities (INVTRAN), which is no payment")


def _tokens_of(text: str) -> Iterator[tuple[int, str, bool, str]]:
    """Yield (line, tag, whether it is an end tag, value) for each tag."""
    line, at = 1, 0
    for found in _TOKEN.finditer(text):
        line, at = line + text.count("\n", at, found.start()), found.start()
        value = "" if found[3] else " ".join(unescape(found[4]).split())
        yield line, found[2].upper(), bool(found[1]), value


def _entry_of(transaction: _OfxTransaction, money: MoneyReader) -> Entry:
    values = transaction.values
    if not transaction.is_closed:
        raise UnreadableCell("it is not closed by </STMTTRN>, so that its values may be cut off")
    if "TRNAMT" not in values:
        raise UnreadableCell("no amount (TRNAMT)")
    moment = values.get("DTPOSTED") or values.get("DTUSER", "")
    # The day as the bank writes it: a zone behind it does not move it.
    booked_on = parse_date(moment[:8]).known if moment else None
    if booked_on is None:
        raise UnreadableCell(f"no date: DTPOSTED is {quote(moment)}")
    currency = values.get("CURRENCY.CURSYM", transaction.currency).upper() or None
    texts = (values.get(tag) for tag in ("NAME", "MEMO"))
    return Entry(
        line=transaction.line,
        booked_on=booked_on,
        amount=money.read(values["TRNAMT"], currency),
        currency=currency,
        description=" / ".join(dict.fromkeys(filter(None, texts))),
        bank_id=values.get("FITID"),
        account=transaction.account or None,
    )
