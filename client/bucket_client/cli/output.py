r"""Output: data on stdout, messages on stderr, tables, colour on a terminal; nothing of a server is printed raw.

Text of the server (log messages, names, errors) may hold control characters. A terminal would take them as commands,
so they are printed as escapes, as in ``\x1b``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

_DIRECTIONS: Final = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Characters that change the direction of text, or end a line: they can make a text look like another one."""
_UNSAFE: Final = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff{_DIRECTIONS}]")
_UNSAFE_IN_JSON: Final = re.compile(f"[\x7f-\x9f\ud800-\udfff{_DIRECTIONS}]")
_SHORT_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_READER_IS_GONE: Final = 141
"""The exit code of a process that SIGPIPE ended, as the shell shows it."""
_PIPE_WIDTH: Final = 1_000_000
_WRAPPED_MIN: Final = 16


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. If a terminal is too narrow, the column with the highest ``dropped_at`` goes first.

    A column with ``dropped_at`` 0 stays. One that ``wraps`` takes the room that is left, on several lines.
    """

    name: str
    dropped_at: int = 0
    wraps: bool = False
    is_number: bool = False
    style_of: dict[str, str] | None = None
    """The colour of each known value."""


@dataclass(frozen=True, slots=True)
class Output:
    """How a command prints: ``as_json`` for programs, ``quiet`` for data alone."""

    as_json: bool = False
    quiet: bool = False
    no_color: bool = False

    @property
    def draws_progress(self) -> bool:
        """Return whether progress is drawn: for a person, on a terminal that can move its cursor."""
        return not self.as_json and not self.quiet and is_terminal(sys.stderr) and not _is_dumb()

    def data(self, text: str) -> None:
        """Print what the command was called for, on stdout."""
        _write(sys.stdout, text)

    def json(self, value: Any) -> None:
        """Print one JSON document on stdout."""
        _write(sys.stdout, json_text(value, indent=2))

    def json_line(self, value: Any) -> None:
        """Print a JSON document on one line of stdout."""
        _write(sys.stdout, json_text(value))

    def note(self, text: str) -> None:
        """Print a message for a person on stderr; a program, or a person who wants quiet, does not get it."""
        if not self.as_json and not self.quiet:
            _write(sys.stderr, text)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
        """Print a table on stdout: fitted to a terminal, whole in a pipe."""
        from rich.table import Table  # here, because most commands draw nothing
        from rich.text import Text

        texts = [[safe(cell) for cell in row] for row in rows]
        console = self.console(sys.stdout)
        kept = _fitting(columns, texts, console.width)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for index in kept:
            column = columns[index]
            justify: Any = "right" if column.is_number else "left"
            table.add_column(column.name, justify=justify, overflow="fold", no_wrap=not column.wraps)
        for row in texts:
            table.add_row(*(Text(row[i], style=(columns[i].style_of or {}).get(row[i], "")) for i in kept))
        with console.capture() as drawn:
            console.print(table)
        self.data("\n".join(line.rstrip() for line in drawn.get().splitlines()))

    def paint(self, text: str, colour: str | None, stream: TextIO | None = None) -> str:
        """Return a text in a colour, or as it is if ``stream`` (stdout by default) is no terminal."""
        return click.style(text, fg=colour) if colour and self._has_colour(stream or sys.stdout) else text

    def console(self, stream: TextIO) -> Console:
        """Return a rich console that writes to a stream, and interprets no markup."""
        from rich.console import Console  # here, because most commands draw nothing

        terminal = is_terminal(stream)
        return Console(
            file=stream,
            force_terminal=terminal,
            width=None if terminal else _PIPE_WIDTH,
            no_color=not self._has_colour(stream),
            color_system="auto" if self._has_colour(stream) else None,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def _has_colour(self, stream: TextIO) -> bool:
        return not self.no_color and not os.environ.get("NO_COLOR") and is_terminal(stream) and not _is_dumb()


def message(text: str) -> None:
    """Print an error or a warning on stderr, which nothing suppresses."""
    _write(sys.stderr, text)


def safe(text: object) -> str:
    """Return a text in which control characters are escapes, so that it can be printed on one line of a terminal."""
    return _UNSAFE.sub(_escape, str(text))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a JSON document that is safe to print, and the same to a program."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=not is_unicode, indent=indent, separators=separators)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal; one that is closed is none."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def _is_dumb() -> bool:
    return os.environ.get("TERM", "") in {"dumb", "unknown"}


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    return _SHORT_ESCAPES.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")  # noqa: PLR2004 -- one byte


def _fitting(columns: Sequence[Column], texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the numbers of the columns that fit into ``width``."""
    from rich.cells import cell_len  # here, because most commands draw nothing

    def needed(index: int) -> int:
        widest = max((cell_len(row[index]) for row in texts), default=0)
        return max(cell_len(columns[index].name), min(widest, _WRAPPED_MIN) if columns[index].wraps else widest)

    kept = list(range(len(columns)))
    while sum(needed(index) + 2 for index in kept) - 2 > width:
        last = max(kept, key=lambda index: columns[index].dropped_at)
        if columns[last].dropped_at == 0:
            break
        kept.remove(last)
    return kept


def _write(stream: TextIO, text: str) -> None:
    """Print a line. If the reader of stdout is gone, end the process quietly, as other commands do."""
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        # From now on nowhere, so that the flush at the end does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if stream is sys.stdout:
            sys.exit(_READER_IS_GONE)
