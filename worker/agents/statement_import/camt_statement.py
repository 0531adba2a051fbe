"""Reads CAMT.053 (ISO 20022 bank-to-customer statements) of any version, and CAMT.052 reports, which look the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from worker.agent_errors import InvalidInputError

from .bounded_xml import parse_xml, text_at
from .statement_amounts import MoneyReader
from .statement_dates import parse_date
from .statement_record import Entry, ImportedStatement, UnreadableCell, quote

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MESSAGES: Final = ("BkToCstmrStmt", "BkToCstmrAcctRpt")
_MONEY: Final = MoneyReader(mark=".")
_BOOKED: Final = frozenset(("BOOK", ""))


@dataclass(slots=True)
class _CamtReader:
    """Reads the entries of each statement; ``account`` is that of the statement at hand."""

    statement: ImportedStatement
    account: str = ""
    message: str = ""
    entries: int = 0
    opening: Decimal | None = None
    closing: Decimal | None = None
    moved: Decimal = Decimal(0)

    def take_account(self, element: Element, _: int) -> None:
        self.account = self.account or text_at(element, "Id/IBAN", "Id/Othr/Id")

    def take_balance(self, element: Element, _: int) -> None:
        kind = text_at(element, "Tp/CdOrPrtry/Cd", "Tp/CdOrPrtry/Prtry")
        try:
            value = _signed(element, element.find("Amt"))[0]
        except UnreadableCell:
            return
        if kind in {"OPBD", "PRCD"}:
            self.opening = value
        elif kind == "CLBD":
            self.closing = value

    def take_statement(self, _: Element, line: int) -> None:
        """Compare the balances at the end of a statement, and forget it."""
        self.message = "statement"
        if self.opening is not None and self.closing is not None and self.opening + self.moved != self.closing:
            self.statement.note(
                f"the statement in line {line} does not add up: {self.opening:f} and its entries, {self.moved:f}, "
                f"are not the closing balance {self.closing:f}"
            )
        self.account, self.opening, self.closing, self.moved = "", None, None, Decimal(0)

    def take_entry(self, element: Element, line: int) -> None:
        """Add an entry, or its parts if they are told one by one and add up to it."""
        self.entries += 1
        status = text_at(element, "Sts/Cd", "Sts/Prtry", "Sts")
        try:
            entry = self._entry_of(element, line, status)
        except UnreadableCell as error:
            self.statement.leave(line, f"entry {self.entries}: {error}")
            return
        self.moved += entry.amount
        for part in _parts_of(element, entry) or [entry]:
            self.statement.add(part)

    def _entry_of(self, element: Element, line: int, status: str) -> Entry:
        if status not in _BOOKED:
            raise UnreadableCell(f"not booked: its status is {quote(status)}")
        amount, currency = _signed(element, element.find("Amt"))
        details = element.findall("NtryDtls/TxDtls")
        return Entry(
            line=line,
            booked_on=_booked_on(element),
            amount=amount,
            currency=currency,
            description=_description_of(element, details[0] if len(details) == 1 else None, amount),
            bank_id=text_at(element, "AcctSvcrRef") or None,
            account=self.account or None,
        )


def read_camt(text: str, statement: ImportedStatement) -> None:
    """Read the entries of all statements in a message; raises InvalidInputError if it is another message."""
    reader = _CamtReader(statement)
    root = parse_xml(
        text,
        {"Ntry": reader.take_entry, "Acct": reader.take_account, "Bal": reader.take_balance}
        | dict.fromkeys(("Stmt", "Rpt"), reader.take_statement),
    )
    if not reader.message:
        raise InvalidInputError(
            f"the XML is no bank statement: it has no {' or '.join(_MESSAGES)} with a Stmt or Rpt, and its root is "
            f"{quote(root.rpartition(' ')[2])} of {quote(root.rpartition(' ')[0] or 'no namespace')}"
        )


def _signed(parent: Element, amount: Element | None) -> tuple[Decimal, str | None]:
    """Return an amount with the sign of its CdtDbtInd, and its currency."""
    if amount is None or not (amount.text or "").strip():
        raise UnreadableCell("no amount (Amt)")
    currency = amount.get("Ccy")
    value = _MONEY.read((amount.text or "").strip(), currency)
    direction = text_at(parent, "CdtDbtInd")
    if direction not in {"CRDT", "DBIT"}:
        raise UnreadableCell(f"CdtDbtInd must be CRDT or DBIT, not {quote(direction)}")
    return (-value if direction == "DBIT" else value), currency


def _booked_on(element: Element) -> date:
    text = text_at(element, "BookgDt/Dt", "BookgDt/DtTm", "ValDt/Dt", "ValDt/DtTm")
    if not text:
        raise UnreadableCell("no date (BookgDt or ValDt)")
    # ISO 20022 allows a zone behind a date too: 2026-01-31+01:00.
    found = parse_date(text[:10]).known
    if found is None:
        raise UnreadableCell(f"{quote(text)} is not a date")
    return found


def _parts_of(element: Element, whole: Entry) -> list[Entry]:
    """Return the transactions of a batch; none if they are not all there, or do not add up to the entry."""
    details = element.findall("NtryDtls/TxDtls")
    if len(details) <= 1:
        return []
    own_ids = Counter(text_at(detail, "Refs/AcctSvcrRef") for detail in details)
    parts = []
    for number, detail in enumerate(details, 1):
        amount = detail.find("Amt") if detail.find("Amt") is not None else detail.find("AmtDtls/TxAmt/Amt")
        try:
            value, currency = _signed(detail if text_at(detail, "CdtDbtInd") else element, amount)
        except UnreadableCell:
            return []
        if currency != whole.currency:
            return []
        # Some banks write the reference of the batch into each of its parts.
        own_id = text_at(detail, "Refs/AcctSvcrRef")
        bank_id = own_id if own_id and own_ids[own_id] == 1 else whole.bank_id and f"{whole.bank_id}/{number}"
        description = _description_of(element, detail, value)
        parts.append(replace(whole, amount=value, bank_id=bank_id, description=description))
    return parts if sum(part.amount for part in parts) == whole.amount else []


def _description_of(element: Element, detail: Element | None, amount: Decimal) -> str:
    """Return the other party and the purpose, or what the bank says of the entry."""
    texts = []
    if detail is not None:
        party = "Dbtr" if amount > 0 else "Cdtr"
        texts.append(text_at(detail, f"RltdPties/{party}/Nm", f"RltdPties/{party}/Pty/Nm"))
        texts.append(" ".join(found.text.strip() for found in detail.findall("RmtInf/Ustrd") if found.text))
        texts.append(text_at(detail, "RmtInf/Strd/CdtrRefInf/Ref", "AddtlTxInf"))
    if not any(texts[1:]):
        texts.append(text_at(element, "AddtlNtryInf"))
    return " / ".join(filter(None, texts))
