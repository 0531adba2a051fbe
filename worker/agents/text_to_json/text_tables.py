"""Reads tables of a text: Markdown's with pipes, and lines with tabs, semicolons or commas under a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .line_shapes import value_of

_RULE: Final = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
NAME_CHARS_MAX: Final = 40
"""Each row repeats the names: with longer ones the output could pass its limit."""
_DELIMITERS: Final = "\t;,"


@dataclass(slots=True)
class TextTable:
    """A table: its columns, its rows as objects, the number of the line after it, and lines that do not fit in it."""

    columns: list[str]
    after: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    unread: list[tuple[int, str]] = field(default_factory=list)


def read_table(lines: Sequence[str], at: int, to_value: Callable[[str], Any]) -> TextTable | None:
    """Return the table whose header is line ``at``, or None.

    With pipes the second line must be a rule (``|---|---|``). With a delimiter the header has two cells or more, no
    blank after a delimiter (as prose has), and a second line with as many cells.
    """
    if at + 1 >= len(lines):
        return None
    if "|" in lines[at] and "|" in lines[at + 1] and _RULE.fullmatch(lines[at + 1]):
        columns = _pipe_cells(lines[at])
        return _rows_of(lines, columns, at + 2, "|", to_value) if _are_names(columns) else None
    for delimiter in _DELIMITERS:
        columns = _cells(lines[at], delimiter)
        heads_table = len(columns) > 1 and _are_names(columns) and f"{delimiter} " not in lines[at]
        if heads_table and len(_cells(lines[at + 1], delimiter)) == len(columns):
            return _rows_of(lines, columns, at + 1, delimiter, to_value)
    return None


def _rows_of(
    lines: Sequence[str], columns: list[str], at: int, delimiter: str, to_value: Callable[[str], Any]
) -> TextTable:
    table = TextTable(columns, at)
    while at < len(lines) and delimiter in lines[at]:
        cells = _pipe_cells(lines[at]) if delimiter == "|" else _cells(lines[at], delimiter)
        if len(cells) == len(columns):
            table.rows.append({name: to_value(cell) for name, cell in zip(columns, cells, strict=True)})
        else:
            table.unread.append((at, f"{len(cells)} cells where the table has {len(columns)} columns"))
        at += 1
    table.after = at
    return table


def _pipe_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error:
        return []


def _are_names(columns: list[str]) -> bool:
    """Return whether these cells can head a table: texts that are no values, each once and not long."""
    are_texts = all(0 < len(name) <= NAME_CHARS_MAX and "\0" not in name and value_of(name) == name for name in columns)
    return are_texts and len(set(columns)) == len(columns)
