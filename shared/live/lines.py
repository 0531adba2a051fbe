"""The log lines of all executions of the last day, in one capped Redis stream."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis

KEY: Final = "logs"
KEPT_S: Final = 24 * 3600
ENTRIES_KEPT: Final = 50_000
_CHUNK: Final = 500
_CURSOR: Final = re.compile(r"(\d{1,15})-(\d{1,10})-(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place between two lines: the stream's entry and how many lines of it lie before."""

    ms: int
    entry: int
    lines: int

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Answer the cursor that ``text`` was made from; None where it is none of ours."""
        found = _CURSOR.fullmatch(text)
        return None if found is None else cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.ms}-{self.entry}-{self.lines}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are asked for; None means any."""

    agent: str | None = None
    level: str | None = None
    execution_id: str | None = None

    def admits(self, line: dict[str, Any]) -> bool:
        """True where a line is one of those asked for."""
        return (
            (self.agent is None or line["agent_name"] == self.agent)
            and (self.level is None or line["level"] == self.level)
            and (self.execution_id is None or line["execution_id"] == self.execution_id)
        )


def add(pipe: Any, lines: Sequence[bytes]) -> None:
    """Append to ``pipe`` what adds lines, as JSON objects, to the stream and lets those of yesterday go."""
    if lines:
        pipe.xadd(KEY, {"lines": b"[" + b",".join(lines) + b"]"}, maxlen=ENTRIES_KEPT, approximate=True)


def trim(pipe: Any) -> None:
    """Append to ``pipe`` what drops the lines older than a day."""
    pipe.xtrim(KEY, minid=int((time.time() - KEPT_S) * 1_000), approximate=True)  # the stream's ids are Redis's time


def after(client: redis.Redis, since: Cursor, wanted: Wanted, limit: int) -> list[tuple[Cursor, dict[str, Any]]]:
    """Answer the lines after ``since``, oldest first, each with the cursor behind it. Raises RedisError."""
    found: list[tuple[Cursor, dict[str, Any]]] = []
    start = f"{since.ms}-{since.entry}"
    while len(found) < limit:
        chunk: list[Any] = client.xrange(KEY, min=start, count=_CHUNK)  # type: ignore[assignment]
        for entry_id, fields in chunk:
            found += [pair for pair in _lines_of(entry_id, fields) if pair[0] > since and wanted.admits(pair[1])]
        if len(chunk) < _CHUNK:
            break
        start = f"({chunk[-1][0].decode()}"
    return found[:limit]


def latest(client: redis.Redis, wanted: Wanted, limit: int) -> list[tuple[Cursor, dict[str, Any]]]:
    """Answer the latest lines, oldest first, each with the cursor behind it. Raises RedisError."""
    found: list[tuple[Cursor, dict[str, Any]]] = []
    end = "+"
    while len(found) < limit:
        chunk: list[Any] = client.xrevrange(KEY, max=end, count=_CHUNK)  # type: ignore[assignment]
        for entry_id, fields in chunk:
            found += [pair for pair in reversed(_lines_of(entry_id, fields)) if wanted.admits(pair[1])]
        if len(chunk) < _CHUNK:
            break
        end = f"({chunk[-1][0].decode()}"
    return found[:limit][::-1]


def _lines_of(entry_id: bytes, fields: dict[bytes, bytes]) -> list[tuple[Cursor, dict[str, Any]]]:
    ms, _, entry = entry_id.decode().partition("-")
    lines = orjson.loads(fields[b"lines"])
    return [(Cursor(int(ms), int(entry), number), line) for number, line in enumerate(lines, 1)]


def oldest_ms(client: redis.Redis) -> int | None:
    """Answer when the oldest line still kept was added, in milliseconds; None where there is none."""
    first: list[Any] = client.xrange(KEY, count=1)  # type: ignore[assignment]
    return int(first[0][0].decode().partition("-")[0]) if first else None
