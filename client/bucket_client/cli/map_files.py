"""The files of a map: inputs read one by one, and results of which each input has exactly one line.

A result is written and handed to the system before the next one is asked for, so a kill loses none. A kill may tear
the last line; a map that goes on cuts it off, under the lock of the state file that belongs to it. Only lines that a
map has written are ever changed: a file with any other line is refused.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import click

from bucket_client.cli.output import json_text
from bucket_client.cli.param_types import NotJson, parse_json, parse_object

COLUMNS: Final = ("line", "execution_id", "status", "result", "error")
_CELL_MAX: Final = 16 * 1024 * 1024
_BOM: Final = "\ufeff"


class InputLine(dict[str, Any]):
    """One input: an object, and the ``line`` of the file where it begins, from 1.

    What is no object has a ``fault``. It holds a value that no JSON can express, so that the client refuses it without
    a request, and counts it: the numbers of the other inputs never depend on which lines are faulty.
    """

    def __init__(self, line: int, members: Mapping[str, Any], fault: str | None = None) -> None:
        super().__init__(members if fault is None else {"": InputLine})
        self.line = line
        self.fault = fault


def read_inputs(path: Path) -> Iterator[InputLine]:
    """Yield the inputs of a file of JSON lines or, if its name ends in ``.csv``, of CSV. Blank lines are skipped."""
    return _read_csv(path) if is_csv(path) else _read_json_lines(path)


def is_csv(path: Path) -> bool:
    """Return whether a file is CSV, by its name. Raises ClickException for a name that says nothing."""
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".jsonl", ".ndjson"}:
        raise click.ClickException(f"{path}: the name must end in .jsonl or .csv")
    return suffix == ".csv"


def count_inputs(path: Path) -> int:
    """Return the number of inputs in a file; it is read once, and not kept."""
    if is_csv(path):
        return sum(1 for _ in _read_csv(path))
    with path.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _read_json_lines(path: Path) -> Iterator[InputLine]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield InputLine(number, parse_object(text.rstrip()))
            except UnicodeDecodeError as error:
                yield InputLine(number, {}, f"is not UTF-8 at byte {error.start}")
            except NotJson as error:
                yield InputLine(number, {}, str(error).replace("line 1, ", ""))


def _read_csv(path: Path) -> Iterator[InputLine]:
    """Yield the records of a CSV file. Its first row names the keys."""
    csv.field_size_limit(_CELL_MAX)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            keys = [key.removeprefix(_BOM) for key in next(rows, [])]
        except csv.Error as error:
            raise click.ClickException(f"{path}: the first row: {error}") from None
        if not keys or "" in keys or len(set(keys)) < len(keys):
            raise click.ClickException(f"{path}: the first row must name the keys, each once")
        while True:
            line = rows.line_num + 1
            try:
                row = next(rows)
                if row:
                    yield InputLine(line, _members_of(keys, row))
            except StopIteration:
                return
            except (csv.Error, NotJson) as error:
                yield InputLine(line, {}, str(error))


def _members_of(keys: list[str], row: list[str]) -> dict[str, Any]:
    if len(row) != len(keys):
        raise NotJson(f"has {len(row)} cells, and the first row has {len(keys)}")
    if not all(cell.isascii() or cell.encode(errors="replace").decode() == cell for cell in row):
        raise NotJson("is not UTF-8")
    return {key: _value_of(cell) for key, cell in zip(keys, row, strict=True)}


def _value_of(cell: str) -> Any:
    try:
        return parse_json(cell)
    except NotJson:
        return cell


@dataclass(slots=True)
class LineSet:
    """A set of line numbers, a bit for each: a million lines take 125 kB."""

    _bits: bytearray = field(default_factory=bytearray)
    _count: int = 0

    def add(self, line: int) -> None:
        """Add a line."""
        place, bit = divmod(line, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits) + len(self._bits) // 4))
        self._count += line not in self
        self._bits[place] |= 1 << bit

    def __contains__(self, line: int) -> bool:
        place, bit = divmod(line, 8)
        return place < len(self._bits) and bool(self._bits[place] >> bit & 1)

    def __len__(self) -> int:
        return self._count


class _Format:
    """How a result is written, and how a line of ours is recognised."""

    def __init__(self, path: Path) -> None:
        self.is_csv = is_csv(path)
        self.header = (",".join(COLUMNS) + "\n").encode() if self.is_csv else b""
        json_line = rb'\{"line":(\d+),"execution_id":(?:null|"[^"]*"),"status":"([a-z]+)",'
        self._line = re.compile(rb"(\d+),[^,]*,([a-z]+)," if self.is_csv else json_line)

    def encode(self, record: Mapping[str, Any]) -> bytes:
        if not self.is_csv:
            return f"{json_text({name: record[name] for name in COLUMNS})}\n".encode()
        row = io.StringIO()
        cells = [record["line"], record["execution_id"], record["status"]]
        cells += ["" if record[name] is None else json_text(record[name]) for name in COLUMNS[3:]]
        csv.writer(row, lineterminator="\n").writerow(cells)
        return row.getvalue().encode()

    def parse(self, line: bytes) -> tuple[int, str] | None:
        """Return the line number and the status in a line of ours; None for any other."""
        found = self._line.match(line)
        return None if found is None else (int(found[1]), found[2].decode())

    def may_begin(self, torn: bytes) -> bool:
        """Return whether a line without an end may be the beginning of one of ours."""
        start = b'{"line":'
        return torn[:1].isdigit() if self.is_csv else torn[: len(start)] == start[: len(torn)]


class ResultFile:
    """The results of a map: it knows the lines that have one. Use it in a ``with``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = LineSet()
        self.not_completed = 0
        self._format = _Format(path)
        self._file = -1

    def scan(self) -> int:
        """Read the results that are there; return how many bytes of them are whole.

        Raises ClickException if the file holds anything that no map has written.
        """
        self.lines, self.not_completed, whole = LineSet(), 0, 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                is_header = number == 1 and bool(self._format.header)
                if not line.endswith(b"\n"):
                    begins = self._format.header.startswith(line) if is_header else self._format.may_begin(line)
                    self._refuse_unless(begins, number)
                    break
                if is_header:
                    self._refuse_unless(line == self._format.header, number)
                else:
                    found = self._format.parse(line)
                    self._refuse_unless(found is not None, number)
                    self._add(*(found or (0, "")))
                whole += len(line)
        return whole

    def open_and_repair(self) -> Self:
        """Open the file to go on after its last whole line; call this only while the state file is locked."""
        whole = self.scan()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(self._file, whole)
        if whole == 0 and self._format.header:
            self._write(self._format.header)
        return self

    def add(self, record: Mapping[str, Any]) -> None:
        """Write the result of a line and hand it to the system; nothing if the line has one."""
        if record["line"] in self.lines:
            return
        self._write(self._format.encode(record))
        self._add(record["line"], record["status"])

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _add(self, line: int, status: str) -> None:
        self.lines.add(line)
        self.not_completed += status != "completed"

    def _write(self, content: bytes) -> None:
        while content:
            content = content[os.write(self._file, content) :]

    def _refuse_unless(self, is_ours: bool, number: int) -> None:
        if not is_ours:
            raise click.ClickException(
                f"{self.path}: line {number} was not written by this command; give another name with -o"
            )
