"""Turns rows of named cells, from CSV or JSON, into transactions; signs, dates and marks are decided by all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from .column_names import plain_name, words
from .row_signs import Row, SignRule, has_credit_mark, is_out_of, sign_rule_of
from .statement_amounts import MoneyReader, currency_code_of, from_minor_units, is_blank, parse_amount, reader_of
from .statement_dates import DateReader, date_reader_of, text_of_moment
from .statement_record import Entry, ImportedStatement, UnreadableCell, clean, quote

DATE_ROLES: Final = ("booked", "date", "valued", "started")
"""The best one first: the day on which the bank booked it."""
AMOUNT_ROLES: Final = ("net", "amount", "gross", "minor", "debit", "credit")
_SAMPLE_ROWS: Final = 100
_MONTH_FIRST_CURRENCIES: Final = frozenset(("USD", "CAD", "PHP"))
"""Those of countries in which people write the month first."""
_MONEY_ROLES: Final = ("net", "amount", "gross", "debit", "credit", "balance", "fee")
_NOT_DONE: Final = words(
    "pending reverted declined failed cancelled canceled rejected denied voided void expired authorised authorized "
    "reversed vorgemerkt storniert abgelehnt refuse annule gereserveerd pendiente rechazado removed"
)
_SUMMARY_ROWS: Final = frozenset(
    (
        "total", "totals", "sum", "opening balance", "closing balance", "starting balance", "ending balance",
        "balance brought forward", "balance carried forward", "brought forward", "carried forward", "start balance",
        "beginning balance", "summe", "gesamt", "saldo", "anfangssaldo", "endsaldo", "schlusssaldo", "alter saldo",
        "neuer saldo", "kontostand", "solde initial", "solde final", "ancien solde", "nouveau solde", "totaal",
        "beginsaldo", "eindsaldo", "saldo inicial", "saldo final", "saldo anterior", "totale",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """What is known of a table beside its rows: from the headers, the lines above them, or the caller."""

    currency: str | None = None
    account: str | None = None
    is_day_first: bool = False
    date_order: str = "auto"
    sign: str = "auto"


@dataclass(frozen=True, slots=True)
class _Readers:
    money: MoneyReader
    dates: DateReader
    signs: SignRule
    facts: TableFacts


def read_table(rows: Sequence[Row], facts: TableFacts, statement: ImportedStatement) -> None:
    """Add each row to the statement, as a transaction or as what could not be read."""
    booked = [row for row in rows if _is_done(row, statement)]
    money = reader_of(row.cells[role] for row in booked for role in _MONEY_ROLES if role in row.cells)
    currencies = {currency for row in booked[:_SAMPLE_ROWS] if (currency := currency_of(row, facts))}
    dates = date_reader_of(
        [[text_of_moment(row.cells[role]) for row in booked if role in row.cells] for role in DATE_ROLES],
        date_order=facts.date_order,
        is_day_first=facts.is_day_first or money.mark == "," or bool(currencies - _MONTH_FIRST_CURRENCIES),
        is_in_dollars="USD" in currencies or any("$" in row.text("amount") for row in booked[:_SAMPLE_ROWS]),
    )
    signs = sign_rule_of(booked, money, facts.sign)
    readers = _Readers(money, dates, signs, facts)
    for note in filter(None, (money.note, dates.note, signs.note)):
        statement.note(note)
    entries = list(_entries_of(booked, readers, statement))
    for entry in _without_fees(entries, money, statement):
        statement.add(entry)


def currency_of(row: Row, facts: TableFacts) -> str | None:
    """Return the currency of a row: its own, that of the table, or that of a sign in the amount."""
    if named := row.text("currency"):
        return currency_code_of(named)
    if facts.currency:
        return facts.currency
    for role in ("net", "amount", "gross", "debit", "credit"):
        try:
            if isinstance(cell := row.cells.get(role), str) and (found := parse_amount(cell).currency):
                return found
        except UnreadableCell:
            continue
    return None


def _is_done(row: Row, statement: ImportedStatement) -> bool:
    """Return whether a row is a booked transaction; says so if it is not."""
    if words(plain_name(row.text("status"))) & _NOT_DONE:
        statement.leave(row.line, f"not booked: its status is {quote(row.text('status'))}")
        return False
    if row.text("sign").casefold() == "memo":
        statement.leave(row.line, "no movement of money: it is marked Memo")
        return False
    if row.texts and all(plain_name(text) in _SUMMARY_ROWS for text in row.texts if text):
        statement.leave(row.line, f"a line of balances or totals, not a transaction: {quote(' '.join(row.texts))}")
        return False
    return True


def _entries_of(rows: Sequence[Row], readers: _Readers, statement: ImportedStatement) -> Iterator[tuple[Entry, Row]]:
    for row in rows:
        try:
            yield _entry_of(row, readers, statement), row
        except UnreadableCell as error:
            statement.leave(row.line, str(error))


def _entry_of(row: Row, readers: _Readers, statement: ImportedStatement) -> Entry:
    moment = next((text for role in DATE_ROLES if (text := text_of_moment(row.cells.get(role, "")).strip())), "")
    if not moment:
        raise UnreadableCell(f"no date; it begins with {quote(_beginning_of(row))}")
    booked_on = readers.dates.read(moment)
    currency = currency_of(row, readers.facts)
    return Entry(
        line=row.line,
        booked_on=booked_on,
        amount=_amount_of(row, readers, currency),
        currency=currency,
        description=" / ".join(dict.fromkeys(text for text in map(clean, row.texts) if text)),
        bank_id=row.text("bank_id") or None,
        account=readers.facts.account or row.text("account") or None,
        balance=_balance_of(row, readers.money, currency, statement),
    )


def _amount_of(row: Row, readers: _Readers, currency: str | None) -> Decimal:
    read = readers.money.read
    if not is_blank(minor := row.cells.get("minor")) and minor is not None:
        value = from_minor_units(Decimal(minor) if isinstance(minor, Decimal) else read(minor), currency)
    else:
        cells = (row.cells.get(role) for role in ("net", "amount", "gross"))
        amount = next((cell for cell in cells if cell is not None and not is_blank(cell)), None)
        if amount is None:
            return _of_two_columns(row, readers, currency)
        value = read(amount, currency)
    is_out = not has_credit_mark(row) if readers.signs.only_credits_are_marked else is_out_of(row)
    return readers.signs.apply(value, is_out)


def _of_two_columns(row: Row, readers: _Readers, currency: str | None) -> Decimal:
    """Return the amount of a row that has a column for debits and one for credits."""
    values = {}
    for role in ("debit", "credit"):
        cell = row.cells.get(role)
        if cell is not None and not is_blank(cell):
            values[role] = readers.money.read(cell, currency)
    filled = {role: value for role, value in values.items() if value} or values
    if not filled:
        raise UnreadableCell(f"no amount; it begins with {quote(_beginning_of(row))}")
    if len(filled) > 1 and any(filled.values()):
        raise UnreadableCell("the line has a debit and a credit")
    if value := filled.get("debit"):
        return value if readers.signs.debits_are_negative else -value
    value = filled.get("credit", Decimal(0))
    return -value if readers.signs.credits_are_negative else value


def _balance_of(row: Row, money: MoneyReader, currency: str | None, statement: ImportedStatement) -> Decimal | None:
    cell = row.cells.get("balance")
    if cell is None or is_blank(cell):
        return None
    try:
        return money.read(cell, currency)
    except UnreadableCell as error:
        statement.note(f"the balance in {statement.place} {row.line} is left out: {error}")
        return None


def _without_fees(
    entries: Sequence[tuple[Entry, Row]], money: MoneyReader, statement: ImportedStatement
) -> Iterator[Entry]:
    """Yield the entries; their fees are taken off if the balances prove that the amounts do not contain them."""
    fees = [_fee_of(entry, row, money) for entry, row in entries]
    if not any(fees):
        yield from (entry for entry, _ in entries)
        return
    balances = [entry.balance for entry, _ in entries]
    with_fee = _count_steps(entries, fees, lambda amount, fee: amount - fee, balances)
    without = _count_steps(entries, fees, lambda amount, _: amount, balances)
    if with_fee and not without:
        statement.note("fees are taken off the amounts: the balances prove that the amounts do not contain them")
    else:
        statement.note("the fee column is not taken off the amounts: no balance proves that they do not contain it")
        fees = [Decimal(0)] * len(fees)
    for (entry, _), fee in zip(entries, fees, strict=True):
        yield replace(entry, amount=entry.amount - fee) if fee else entry


def _fee_of(entry: Entry, row: Row, money: MoneyReader) -> Decimal:
    cell = row.cells.get("fee")
    if cell is None or is_blank(cell) or "net" in row.cells:
        return Decimal(0)
    try:
        return abs(money.read(cell, entry.currency))
    except UnreadableCell:
        return Decimal(0)


def _count_steps(
    entries: Sequence[tuple[Entry, Row]],
    fees: Sequence[Decimal],
    change: Callable[[Decimal, Decimal], Decimal],
    balances: Sequence[Decimal | None],
) -> int:
    """Count the rows with a fee whose balance follows from that of a neighbour, in either order of the file."""
    count = 0
    for number, (entry, _) in enumerate(entries):
        after = balances[number]
        neighbours = [balances[other] for other in (number - 1, number + 1) if 0 <= other < len(balances)]
        if fees[number] and after is not None:
            count += any(
                before is not None and before + change(entry.amount, fees[number]) == after for before in neighbours
            )
    return count


def _beginning_of(row: Row) -> str:
    return " ".join(filter(None, (*row.texts, *(str(cell) for cell in row.cells.values()))))[:60]
