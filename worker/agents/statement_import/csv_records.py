"""Splits CSV text into records with their line numbers; a quote that is never closed costs one line, not the rest."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from worker.agent_errors import InvalidInputError

LINES_MAX: Final = 100_000
QUOTED_LINES_MAX: Final = 100
"""How many lines one quoted field may run over."""
LINE_MAX_CHARS: Final = 32_768
FIELDS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class CsvRecord:
    """A record: the number of its first line, and its fields; ``fault`` says why it could not be split."""

    line: int
    fields: list[str]
    fault: str = ""

    @property
    def last_line(self) -> int:
        """The number of the last line; a quoted field may run over several."""
        return self.line + sum(field.count("\n") for field in self.fields)


def lines_of(text: str) -> list[str]:
    """Return the lines of a text; only CR and LF end lines here, not every separator of Unicode.

    Raises InvalidInputError for more lines than the memory of a worker should be spent on.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > LINES_MAX:
        raise InvalidInputError(f"the text has {len(lines):,} lines, and at most {LINES_MAX:,} are read: split it")
    return lines


def records_of(lines: Sequence[str], delimiter: str, start: int = 0) -> Iterator[CsvRecord]:
    """Yield the records from line ``start`` (0-based) on; blank lines are left out."""
    at = start
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if len(lines[at]) > LINE_MAX_CHARS:
            yield CsvRecord(at + 1, [], f"a line of more than {LINE_MAX_CHARS:,} characters")
            at += 1
            continue
        taken, fields = _split(lines, at, delimiter)
        if fields is None:
            yield CsvRecord(at + 1, [], "a quote is opened and not closed")
        elif len(fields) > FIELDS_MAX:
            yield CsvRecord(at + 1, fields[:FIELDS_MAX], f"more than {FIELDS_MAX} fields")
        else:
            yield CsvRecord(at + 1, fields)
        at += taken


def _split(lines: Sequence[str], at: int, delimiter: str) -> tuple[int, list[str] | None]:
    """Return how many lines the record at ``at`` takes and its fields; None if a quote is not closed."""
    plain = [field.strip() for field in lines[at].split(delimiter, FIELDS_MAX + 1)]
    # A quote inside a field (7" pipe) is text.
    if not any(field.startswith('"') for field in plain):
        return 1, plain
    quotes = 0
    for taken in range(1, min(QUOTED_LINES_MAX, len(lines) - at) + 1):
        quotes += lines[at + taken - 1].count('"')
        # A field's quotes come in pairs, so an odd number of them means that the field goes on.
        if quotes % 2 == 0:
            try:
                # Over several lines a quote that closes inside a word is a lost one, which would swallow a transaction.
                reader = csv.reader(
                    ["\n".join(lines[at : at + taken])],
                    delimiter=delimiter,
                    skipinitialspace=True,
                    strict=taken > 1,
                )
                return taken, [field.strip() for field in next(reader, [])]
            except csv.Error:
                return 1, None
    return 1, None
