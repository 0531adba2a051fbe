"""Reads key-value lines, tables, lists and embedded JSON out of a text; every other line is told as unread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.context import AgentContext

from .embedded_json import JsonFinder
from .line_shapes import bullet_of, key_value_of, value_of
from .text_tables import read_table


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Return ``{data, tables, lists, json, unread, notes, ...}``; nothing of the text is dropped in silence."""
    reader = _Reader(given["text"], typed=given.get("values", "json") == "json")
    output = reader.read()
    ctx.log("read the text", lines=output["lines"], read=output["lines_read"], unread=len(output["unread"]))
    return output


class _Reader:
    """Reads a text from its first line to its last; each method that reads returns the next line's number."""

    def __init__(self, text: str, *, typed: bool) -> None:
        self._lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._finder = JsonFinder(self._lines)
        self._to_value: Callable[[str], Any] = value_of if typed else str
        self._data: dict[str, Any] = {}
        self._merged: set[str] = set()
        self._repeated: dict[str, list[int]] = {}
        self._tables: list[dict[str, Any]] = []
        self._lists: list[dict[str, Any]] = []
        self._json: list[dict[str, Any]] = []
        self._unread: list[dict[str, Any]] = []

    def read(self) -> dict[str, Any]:
        """Read all lines."""
        at = 0
        while at < len(self._lines):
            at = self._read_at(at) if self._lines[at].strip() else at + 1
        lines = sum(1 for line in self._lines if line.strip())
        return {
            "data": self._data,
            "tables": self._tables,
            "lists": self._lists,
            "json": self._json,
            "unread": self._unread,
            "lines": lines,
            "lines_read": lines - len({entry["line"] for entry in self._unread}),
            "notes": [
                f"{name!r} is on the lines {', '.join(map(str, numbers[:10]))}: its values are a list"
                for name, numbers in self._repeated.items()
                if len(numbers) > 1
            ],
        }

    def _read_at(self, at: int) -> int:
        line = self._lines[at]
        if line.lstrip()[0] in "{[":
            return self._read_json(at, len(line) - len(line.lstrip()))
        if (table := read_table(self._lines, at, self._to_value)) is not None:
            self._tables.append({"line": at + 1, "columns": table.columns, "rows": table.rows})
            self._unread += [self._no(number, reason) for number, reason in table.unread]
            return table.after
        if bullet_of(line) is not None:
            items, after = self._items(at)
            self._lists.append({"line": at + 1, "items": items})
            return after
        if (pair := key_value_of(line)) is not None:
            return self._read_pair(at, *pair)
        start = min((found for found in (line.find("{"), line.find("[")) if found >= 0), default=-1)
        if start < 0:
            self._unread.append(self._no(at, "no key, table, list or JSON"))
            return at + 1
        return self._read_json(at, start, "only the JSON in this line was read")

    def _read_pair(self, at: int, key: str, text: str) -> int:
        if "\0" in key:
            self._unread.append(self._no(at, "a key with a null character cannot be stored"))
            return at + 1
        if text[:1] in ("{", "["):
            found = self._finder.find(at, len(self._lines[at].rstrip()) - len(text))
            if found.reason is None and not found.rest.strip():
                self._add(key, found.value, at)
                return found.line + 1
        if text:
            self._add(key, self._to_value(text), at)
            return at + 1
        if at + 1 < len(self._lines) and bullet_of(self._lines[at + 1]) is not None:
            items, after = self._items(at + 1)
            self._add(key, items, at)
            return after
        self._unread.append(self._no(at, "a key or heading without a value"))
        return at + 1

    def _read_json(self, at: int, start: int, rest_reason: str = "text beside the JSON of this line") -> int:
        found = self._finder.find(at, start)
        if found.reason is not None:
            self._unread.append(self._no(at, found.reason))
            return at + 1
        self._json.append({"line": at + 1, "value": found.value})
        if self._lines[at][:start].strip():
            self._unread.append(self._no(at, rest_reason))
        if found.rest.strip() and (found.line != at or not self._lines[at][:start].strip()):
            self._unread.append(self._no(found.line, rest_reason))
        return found.line + 1

    def _items(self, at: int) -> tuple[list[Any], int]:
        items = []
        while at < len(self._lines) and (item := bullet_of(self._lines[at])) is not None:
            items.append(self._to_value(item))
            at += 1
        return items, at

    def _add(self, key: str, value: Any, at: int) -> None:
        numbers = self._repeated.setdefault(key, [])
        numbers.append(at + 1)
        if len(numbers) == 1:
            self._data[key] = value
            return
        if key not in self._merged:
            self._merged.add(key)
            self._data[key] = [self._data[key]]
        self._data[key].append(value)

    def _no(self, at: int, reason: str) -> dict[str, Any]:
        return {"line": at + 1, "text": self._lines[at].strip()[:200], "reason": reason}
