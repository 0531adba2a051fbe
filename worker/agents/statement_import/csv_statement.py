"""Reads statements as CSV: finds the delimiter and the header by the columns' names, whatever stands above it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from worker.agent_errors import InvalidInputError

from .column_names import CURRENCIES, is_english, role_of
from .csv_records import CsvRecord, lines_of, records_of
from .row_signs import Row
from .statement_record import ImportedStatement, clean, quote, shorten
from .statement_table import AMOUNT_ROLES, DATE_ROLES, TableFacts, read_table

DELIMITERS: Final = (";", ",", "\t", "|")
_HEADER_LINES_MAX: Final = 60
"""How far down a header is looked for."""
_ON_ITS_OWN: Final = "import it on its own"
_LIST_ROLES: Final = frozenset(("text", "payee"))
_IBAN: Final = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b")
_SEPARATOR_LINE: Final = re.compile(r"\s*\"?sep=([;,|\t])\"?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CsvHeader:
    """The header of a table: its line, the delimiter, and what each column means."""

    record: CsvRecord
    delimiter: str
    roles: tuple[str | None, ...]
    currencies: tuple[str | None, ...]

    @property
    def score(self) -> int:
        """How many columns are known."""
        return sum(role is not None for role in self.roles)


def find_header(lines: Sequence[str]) -> CsvHeader | None:
    """Return the header with the most known columns among the first lines; None if no line has a date and an amount."""
    found: list[CsvHeader] = []
    named = _SEPARATOR_LINE.fullmatch(lines[0]) if lines else None
    for delimiter in [named[1]] if named else DELIMITERS:
        for record in records_of(lines[:_HEADER_LINES_MAX], delimiter):
            header = _header_of(record, delimiter, lines)
            if header is not None:
                found.append(header)
    return max(found, key=lambda header: header.score, default=None)


def read_csv(text: str, statement: ImportedStatement, options: dict[str, Any]) -> None:
    """Read a CSV statement; raises InvalidInputError if there is no header with a date and an amount."""
    lines = lines_of(text)
    header = find_header(lines)
    if header is None:
        first = next((line for line in lines if line.strip()), "")
        raise InvalidInputError(
            "no header line was found: CSV needs one that names a date and an amount (or a debit and a credit), in "
            f"English, German, French, Dutch or Spanish, within the first {_HEADER_LINES_MAX} lines; the text begins "
            f"with {quote(first)}"
        )
    _note_header(header, statement)
    _leave_table_above(header, lines, statement)
    rows, other_line = [], 0
    for record in records_of(lines, header.delimiter, header.record.last_line):
        other_line = other_line or (record.line if _is_other_header(record, header, lines) else 0)
        if other_line:
            statement.leave(record.line, f"of another table, with the header in line {other_line}: {_ON_ITS_OWN}")
            continue
        row = _row_of(record, header, statement)
        if row is not None:
            rows.append(row)
    facts = TableFacts(
        currency=_currency_of(header, lines),
        account=_account_above(header, lines),
        is_day_first=not all(
            is_english(name) for name, role in zip(header.record.fields, header.roles, strict=False) if role
        ),
        **options,
    )
    read_table(rows, facts, statement)


def _leave_table_above(header: CsvHeader, lines: Sequence[str], statement: ImportedStatement) -> None:
    """Record which lines are not read because their own header, above the chosen one, names fewer columns."""
    other_line = 0
    for record in records_of(lines[: header.record.line - 1], header.delimiter):
        other_line = other_line or (record.line if _header_of(record, header.delimiter, lines) else 0)
        if other_line:
            statement.leave(record.line, f"of another table, with the header in line {other_line}: {_ON_ITS_OWN}")


def _is_other_header(record: CsvRecord, header: CsvHeader, lines: Sequence[str]) -> bool:
    """Return whether a record is the header of another table; no row of a table is without a digit."""
    if any(char.isdigit() for field in record.fields for char in field):
        return False
    found = _header_of(record, header.delimiter, lines)
    return found is not None and found.roles != header.roles


def _header_of(record: CsvRecord, delimiter: str, lines: Sequence[str]) -> CsvHeader | None:
    found = [role_of(field) if field else None for field in record.fields]
    roles: list[str | None] = []
    for field in found:
        role = field[0] if field else None
        # Of two columns with one meaning the first counts, but all texts are taken.
        roles.append(role if role in _LIST_ROLES or role not in roles else None)
    if not set(roles) & set(DATE_ROLES) or not set(roles) & set(AMOUNT_ROLES):
        return None
    roles = _without_valuta_as_date(record, roles, delimiter, lines)
    return CsvHeader(record, delimiter, tuple(roles), tuple(field[1] if field else None for field in found))


def _without_valuta_as_date(
    record: CsvRecord, roles: list[str | None], delimiter: str, lines: Sequence[str]
) -> list[str | None]:
    """Return the roles; a column Valuta is the value date in German, and the currency in Dutch and Italian."""
    names = [field.strip().casefold() for field in record.fields]
    if "valuta" in names:
        at = names.index("valuta")
        first = next(records_of(lines, delimiter, record.line), None)
        if first is not None and at < len(first.fields) and first.fields[at].upper() in CURRENCIES:
            roles[at] = "currency" if "currency" not in roles else None
    return roles


def _row_of(record: CsvRecord, header: CsvHeader, statement: ImportedStatement) -> Row | None:
    """Return the row of a record; None if it is empty, or cannot be read, which is then told."""
    if not record.fault and not any(record.fields):
        return None
    if fault := record.fault or _fault_of(record, header):
        statement.leave(record.line, fault)
        return None
    row = Row(record.line)
    for field, role, currency in zip(record.fields, header.roles, header.currencies, strict=False):
        if role is None or not field:
            continue
        if role in _LIST_ROLES:
            row.texts.insert(0 if role == "payee" else len(row.texts), field)
        else:
            row.cells[role] = field
            if currency and role in AMOUNT_ROLES:
                row.cells.setdefault("currency", currency)
    return row


def _fault_of(record: CsvRecord, header: CsvHeader) -> str:
    """Return why a record is no row of the table; "" if it is one."""
    fields, width = record.fields, len(header.roles)
    if record.last_line > record.line and len(fields) != width:
        return f"a quoted field runs on to line {record.last_line}, and the fields do not fit the header"
    if fields == header.record.fields:
        return "the header again"
    if any(fields[width:]):
        return f"{len(fields)} fields, and the header has {width}: a delimiter stands in an unquoted field"
    has_date = any(field and role in DATE_ROLES for field, role in zip(fields, header.roles, strict=False))
    return "" if has_date else f"no date: {quote(' '.join(filter(None, fields)))}"


def _note_header(header: CsvHeader, statement: ImportedStatement) -> None:
    names = [name for name, role in zip(header.record.fields, header.roles, strict=False) if role]
    statement.note(
        f"the header is in line {header.record.line}, with the delimiter {header.delimiter!r}; the columns read are "
        + shorten(clean(", ".join(names)), 300)
    )


def _currency_of(header: CsvHeader, lines: Sequence[str]) -> str | None:
    if "currency" in header.roles:
        return None
    for line in lines[: header.record.line - 1]:
        words = {word for word in re.split(r"[^A-Z]+", line) if word in CURRENCIES}
        if len(words) == 1:
            return words.pop()
    return None


def _account_above(header: CsvHeader, lines: Sequence[str]) -> str | None:
    for line in lines[: header.record.line - 1]:
        if found := _IBAN.search(line):
            return found[0].replace(" ", "")
    return None
