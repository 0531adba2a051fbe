"""The log lines of all executions of the last day, in one capped Redis stream."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
import redis

KEY: Final = "logs"
KEPT_S: Final = 24 * 3600
ENDS_AFTER_S: Final = 2 * KEPT_S
"""With an end it may go when Redis is full, after all views and outputs; without one messages would find no room."""
ENTRIES_KEPT: Final = 50_000
_CHUNK: Final = 500
_ALL_LINES: Final = 999_999  # a place behind all lines of an entry
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

    @property
    def told(self) -> tuple[bytes, ...]:
        """What stands in the bytes of each line that is asked for: most entries need not be read to be passed over."""
        named = {"agent_name": self.agent, "level": self.level, "execution_id": self.execution_id}
        return tuple(orjson.dumps({name: value})[1:-1] for name, value in named.items() if value is not None)

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
        pipe.expire(KEY, ENDS_AFTER_S)


def trim(pipe: Any) -> None:
    """Append to ``pipe`` what drops the lines older than a day."""
    pipe.xtrim(KEY, minid=int((time.time() - KEPT_S) * 1_000), approximate=True)  # the stream's ids are Redis's time


@dataclass(frozen=True, slots=True)
class Found:
    """Lines, oldest first, and where to read on: behind the last of them, or at the end of what was searched."""

    lines: list[dict[str, Any]]
    end: Cursor


@dataclass(frozen=True, slots=True)
class Beginning:
    """How far back the stream reaches; ``early`` are lines in it that are older, by execution and ``seq``."""

    ms: int
    early: frozenset[tuple[str, int]]


def after(client: redis.Redis, since: Cursor, wanted: Wanted, limit: int) -> Found:
    """Answer the lines after ``since``. Raises RedisError."""
    found: list[dict[str, Any]] = []
    end = since
    start = f"{since.ms}-{since.entry}"
    told = wanted.told
    while len(found) < limit:
        chunk: list[Any] = client.xrange(KEY, min=start, count=_CHUNK)  # type: ignore[assignment]
        for entry in chunk:
            if not _may_hold(entry, told):
                end = max(end, _behind(entry)) if len(found) < limit else end
                continue
            for cursor, line in _lines_of(*entry):
                if cursor > since and len(found) < limit:
                    end = cursor
                    if wanted.admits(line):
                        found.append(line)
        if len(chunk) < _CHUNK:
            break
        start = f"({chunk[-1][0].decode()}"
    return Found(found, end)


def latest(client: redis.Redis, wanted: Wanted, limit: int) -> Found:
    """Answer the latest lines; to read on from their ``end`` gives what came since. Raises RedisError."""
    found: list[dict[str, Any]] = []
    tip = Cursor(_now_ms(client), 0, 0)  # asked before the stream, or a line added between would be passed over
    end = "+"
    told = wanted.told
    while len(found) < limit:
        chunk: list[Any] = client.xrevrange(KEY, max=end, count=_CHUNK)  # type: ignore[assignment]
        if end == "+" and chunk:
            tip = _behind(chunk[0])
        for entry in chunk:
            if _may_hold(entry, told):
                found += [line for _, line in reversed(_lines_of(*entry)) if wanted.admits(line)]
        if len(chunk) < _CHUNK:
            break
        end = f"({chunk[-1][0].decode()}"
    return Found(found[:limit][::-1], tip)


def reaches(client: redis.Redis, since: Cursor) -> bool:
    """Answer whether the stream still holds the line behind which ``since`` lies. Raises RedisError."""
    return bool(client.xrange(KEY, max=f"{since.ms}-{since.entry}", count=1))


def beginning(client: redis.Redis) -> Beginning:
    """Answer how far back the stream reaches; to now where it is empty. Raises RedisError."""
    now_ms = _now_ms(client)
    chunk: list[Any] = client.xrange(KEY, count=_CHUNK)  # type: ignore[assignment]
    if not chunk:
        return Beginning(now_ms, frozenset())
    first_ms = int(chunk[0][0].decode().partition("-")[0])
    # An agent's lines are added in batches, some time after they were said.
    early = ((ms_of(line), line) for entry in chunk for _, line in _lines_of(*entry))
    return Beginning(first_ms, frozenset((line["execution_id"], line["seq"]) for ms, line in early if ms < first_ms))


def ms_of(line: dict[str, Any]) -> int:
    """Answer when a line was said, in milliseconds since 1970."""
    return round(datetime.fromisoformat(line["timestamp"]).timestamp() * 1_000)


def _now_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1_000 + int(micros) // 1_000


def _may_hold(entry: tuple[bytes, dict[bytes, bytes]], told: Sequence[bytes]) -> bool:
    """False where no line of an entry can be one of those asked for; reading all of a day takes seconds."""
    return all(words in entry[1][b"lines"] for words in told)


def _behind(entry: tuple[bytes, dict[bytes, bytes]]) -> Cursor:
    ms, _, number = entry[0].decode().partition("-")
    return Cursor(int(ms), int(number), _ALL_LINES)


def _lines_of(entry_id: bytes, fields: dict[bytes, bytes]) -> list[tuple[Cursor, dict[str, Any]]]:
    ms, _, entry = entry_id.decode().partition("-")
    lines = orjson.loads(fields[b"lines"])
    return [(Cursor(int(ms), int(entry), number), line) for number, line in enumerate(lines, 1)]
