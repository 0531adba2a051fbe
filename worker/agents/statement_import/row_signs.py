"""Decides, by all rows, what sign an amount has: its own, that of a debit or credit mark, or the opposite."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from .column_names import plain_name, words
from .statement_amounts import MoneyReader, is_blank
from .statement_record import UnreadableCell, clean

Cell = str | Decimal
_OUT: Final = words(
    "af uit d debit dr db soll s out outgoing debet cargo debito debe dare withdrawal expense expenses dbit depense "
    "sortie ausgabe outflow fee spending"
)
_IN: Final = words(
    "bij c credit cr haben h in incoming abono credito haber avere deposit income crdt entree einnahme inflow"
)
_CREDIT_MARK: Final = re.compile(r"[0-9] *cr\.? *$", re.IGNORECASE)
_PURCHASE: Final = "purchase"
_REPAYMENTS: Final = "payments and credits"


@dataclass(slots=True)
class Row:
    """A row of a statement: its cells by what they mean, and the texts that describe it."""

    line: int
    cells: dict[str, Cell] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def text(self, role: str) -> str:
        """Return a cell as text; "" if there is none."""
        return clean(str(self.cells.get(role, "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRule:
    """How the amounts of one statement get their signs."""

    marks_decide: bool = False
    are_marks_required: bool = False
    is_inverted: bool = False
    debits_are_negative: bool = False
    credits_are_negative: bool = False
    only_credits_are_marked: bool = False
    note: str = ""

    def apply(self, value: Decimal, is_out: bool | None) -> Decimal:
        """Return the amount, negative if money went out; raises UnreadableCell if the row does not say so."""
        if not self.marks_decide:
            return -value if self.is_inverted else value
        if is_out is None and self.are_marks_required:
            raise UnreadableCell("the line does not say whether it is a debit or a credit")
        return -value if is_out else value


def is_out_of(row: Row) -> bool | None:
    """Return whether a row says that money went out (debit, Af, Soll, ...); None if it does not say."""
    for role in ("sign", "kind"):
        text = row.text(role)
        word = text if text in {"+", "-"} else plain_name(text)
        if word in _OUT or word == "-":
            return True
        if word in _IN or word == "+":
            return False
    return None


def has_credit_mark(row: Row) -> bool:
    """Return whether the amount of a row has the mark CR behind it."""
    cells = (row.cells.get(role) for role in ("net", "amount", "gross"))
    return any(isinstance(cell, str) and _CREDIT_MARK.search(cell) for cell in cells)


def sign_rule_of(rows: Sequence[Row], money: MoneyReader, sign: str = "auto") -> SignRule:
    """Return the rule for all rows; ``sign`` is what the caller says: auto, as_written or inverted."""
    columns = SignRule(
        debits_are_negative=_are_negative(rows, money, "debit"),
        credits_are_negative=_are_negative(rows, money, "credit"),
    )
    if sign != "auto":
        return replace(columns, is_inverted=sign == "inverted")
    values = list(_values_of(rows, money, ("net", "amount", "gross", "minor")))
    if _are_purchases_positive(values):
        note = "purchases have positive amounts here, as card statements list them: all signs are turned; see sign"
        return replace(columns, is_inverted=True, note=note)
    if _are_only_credits_marked(rows, values):
        note = "only credits are marked (CR): amounts without a mark are read as money out"
        return SignRule(marks_decide=True, only_credits_are_marked=True, note=note)
    out = [value for row, value in values if value and is_out_of(row)]
    # Amounts that are negative where money went out have signs of their own.
    if sum(value > 0 for value in out) > sum(value < 0 for value in out):
        note = "the amounts have no signs: a debit or credit mark decides"
        are_marks_required = any("sign" in row.cells for row in rows)
        unmarked = sum(value > 0 and is_out_of(row) is None for row, value in values)
        if unmarked and not are_marks_required:
            note += f"; {unmarked} positive amounts have none and are read as money in"
        return SignRule(marks_decide=True, are_marks_required=are_marks_required, note=note)
    return columns


def _are_only_credits_marked(rows: Sequence[Row], values: Sequence[tuple[Row, Decimal]]) -> bool:
    """Return whether a card statement marks its few credits with CR, and its purchases with nothing."""
    marked = sum(map(has_credit_mark, rows))
    has_other_marks = any(value < 0 or is_out_of(row) is not None for row, value in values)
    return 0 < marked < len(values) and not has_other_marks


def _are_negative(rows: Sequence[Row], money: MoneyReader, role: str) -> bool:
    """Return whether a column of debits, or of credits, is written with a minus; a few without are corrections."""
    values = [value for _, value in _values_of(rows, money, (role,)) if value]
    return sum(value < 0 for value in values) * 2 > len(values)


def _are_purchases_positive(values: Sequence[tuple[Row, Decimal]]) -> bool:
    """Return whether a card statement shows, by its columns, kinds or categories, that purchases are positive."""
    if any("card_holder" in row.cells for row, _ in values):
        return sum(value > 0 for _, value in values) >= max(sum(value < 0 for _, value in values), 1)
    negative = [row for row, value in values if value < 0]
    bought = [value for row, value in values if value and plain_name(row.text("kind")) == _PURCHASE]
    if bought:
        return all(value > 0 for value in bought)
    return bool(negative) and all(plain_name(row.text("category")) == _REPAYMENTS for row in negative)


def _values_of(rows: Sequence[Row], money: MoneyReader, roles: Sequence[str]) -> Iterator[tuple[Row, Decimal]]:
    for row in rows:
        cell = next((row.cells[role] for role in roles if not is_blank(row.cells.get(role))), None)
        if cell is None:
            continue
        try:
            yield row, cell if isinstance(cell, Decimal) else money.read(cell)
        except UnreadableCell:
            continue
