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

LOG_STREAM_KEY: Final = "logs"
LOG_LINE_TTL_S: Final = 24 * 3600
LOG_STREAM_TTL_S: Final = 2 * LOG_LINE_TTL_S
"""With an end it may go when Redis is full, after all views and outputs; without one messages would find no room."""
STREAM_ENTRIES_MAX: Final = 50_000
_CHUNK: Final = 500
_ALL_LINES: Final = 999_999  # a place behind all lines of an entry
_CURSOR: Final = re.compile(r"(\d{1,15})-(\d{1,10})-(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class LogCursor:
    """A place between two lines: the stream's entry and how many lines of it lie before."""

    ms: int
    entry: int
    lines: int

    @classmethod
    def parse(cls, text: str) -> LogCursor | None:
        """Answer the cursor that ``text`` was made from; None where it is none of ours."""
        found = _CURSOR.fullmatch(text)
        return None if found is None else cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.ms}-{self.entry}-{self.lines}"


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which lines are asked for; None means any."""

    agent: str | None = None
    level: str | None = None
    execution_id: str | None = None

    @property
    def byte_patterns(self) -> tuple[bytes, ...]:
        """What stands in the bytes of each line that is asked for: most entries need not be read to be passed over."""
        named = {"agent_name": self.agent, "level": self.level, "execution_id": self.execution_id}
        return tuple(orjson.dumps({name: value})[1:-1] for name, value in named.items() if value is not None)

    def matches(self, line: dict[str, Any]) -> bool:
        """True where a line is one of those asked for."""
        return (
            (self.agent is None or line["agent_name"] == self.agent)
            and (self.level is None or line["level"] == self.level)
            and (self.execution_id is None or line["execution_id"] == self.execution_id)
        )


def append_lines(pipe: Any, lines: Sequence[bytes]) -> None:
    """Append to ``pipe`` what adds lines, as JSON objects, to the stream and lets those of yesterday go."""
    if lines:
        pipe.xadd(
            LOG_STREAM_KEY, {"lines": b"[" + b",".join(lines) + b"]"}, maxlen=STREAM_ENTRIES_MAX, approximate=True
        )
        pipe.expire(LOG_STREAM_KEY, LOG_STREAM_TTL_S)


def trim_stream(pipe: Any) -> None:
    """Append to ``pipe`` what drops the lines older than a day."""
    pipe.xtrim(
        LOG_STREAM_KEY, minid=int((time.time() - LOG_LINE_TTL_S) * 1_000), approximate=True
    )  # the stream's ids are Redis's time


@dataclass(frozen=True, slots=True)
class LogStreamPage:
    """Lines, oldest first, and where to read on: behind the last of them, or at the end of what was searched."""

    lines: list[dict[str, Any]]
    next_cursor: LogCursor


@dataclass(frozen=True, slots=True)
class StreamStart:
    """How far back the stream reaches; ``early`` are lines in it that are older, by execution and ``seq``."""

    ms: int
    older_lines: frozenset[tuple[str, int]]


def read_after(client: redis.Redis, since: LogCursor, log_filter: LogFilter, limit: int) -> LogStreamPage:
    """Answer the lines after ``since``. Raises RedisError."""
    found: list[dict[str, Any]] = []
    end = since
    start = f"{since.ms}-{since.entry}"
    told = log_filter.byte_patterns
    while len(found) < limit:
        chunk: list[Any] = client.xrange(LOG_STREAM_KEY, min=start, count=_CHUNK)  # type: ignore[assignment]
        for entry in chunk:
            if not _may_match(entry, told):
                end = max(end, _cursor_after(entry)) if len(found) < limit else end
                continue
            for cursor, line in _lines_of(*entry):
                if cursor > since and len(found) < limit:
                    end = cursor
                    if log_filter.matches(line):
                        found.append(line)
        if len(chunk) < _CHUNK:
            break
        start = f"({chunk[-1][0].decode()}"
    return LogStreamPage(found, end)


def read_latest(client: redis.Redis, log_filter: LogFilter, limit: int) -> LogStreamPage:
    """Answer the latest lines; to read on from their ``end`` gives what came since. Raises RedisError."""
    found: list[dict[str, Any]] = []
    tip = LogCursor(_now_ms(client), 0, 0)  # asked before the stream, or a line added between would be passed over
    end = "+"
    told = log_filter.byte_patterns
    while len(found) < limit:
        chunk: list[Any] = client.xrevrange(LOG_STREAM_KEY, max=end, count=_CHUNK)  # type: ignore[assignment]
        if end == "+" and chunk:
            tip = _cursor_after(chunk[0])
        for entry in chunk:
            if _may_match(entry, told):
                found += [line for _, line in reversed(_lines_of(*entry)) if log_filter.matches(line)]
        if len(chunk) < _CHUNK:
            break
        end = f"({chunk[-1][0].decode()}"
    return LogStreamPage(found[:limit][::-1], tip)


def contains(client: redis.Redis, since: LogCursor) -> bool:
    """Answer whether the stream still holds the line behind which ``since`` lies. Raises RedisError."""
    return bool(client.xrange(LOG_STREAM_KEY, max=f"{since.ms}-{since.entry}", count=1))


def read_stream_start(client: redis.Redis) -> StreamStart:
    """Answer how far back the stream reaches; to now where it is empty. Raises RedisError."""
    now_ms = _now_ms(client)
    chunk: list[Any] = client.xrange(LOG_STREAM_KEY, count=_CHUNK)  # type: ignore[assignment]
    if not chunk:
        return StreamStart(now_ms, frozenset())
    first_ms = int(chunk[0][0].decode().partition("-")[0])
    # An agent's lines are added in batches, some time after they were said.
    early = ((timestamp_ms_of(line), line) for entry in chunk for _, line in _lines_of(*entry))
    return StreamStart(first_ms, frozenset((line["execution_id"], line["seq"]) for ms, line in early if ms < first_ms))


def timestamp_ms_of(line: dict[str, Any]) -> int:
    """Answer when a line was said, in milliseconds since 1970."""
    return round(datetime.fromisoformat(line["timestamp"]).timestamp() * 1_000)


def _now_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1_000 + int(micros) // 1_000


def _may_match(entry: tuple[bytes, dict[bytes, bytes]], told: Sequence[bytes]) -> bool:
    """False where no line of an entry can be one of those asked for; reading all of a day takes seconds."""
    return all(words in entry[1][b"lines"] for words in told)


def _cursor_after(entry: tuple[bytes, dict[bytes, bytes]]) -> LogCursor:
    ms, _, number = entry[0].decode().partition("-")
    return LogCursor(int(ms), int(number), _ALL_LINES)


def _lines_of(entry_id: bytes, fields: dict[bytes, bytes]) -> list[tuple[LogCursor, dict[str, Any]]]:
    ms, _, entry = entry_id.decode().partition("-")
    lines = orjson.loads(fields[b"lines"])
    return [(LogCursor(int(ms), int(entry), number), line) for number, line in enumerate(lines, 1)]
