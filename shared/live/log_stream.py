"""Log stream: the log lines of all executions of the last day, in one capped Redis stream, read by cursor.

An entry has lines of one integrator; without a name it is of the default one, as in the releases that knew no other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import orjson
import redis

from shared.domain.access.caller import Scope
from shared.domain.execution import PUBLIC_INTEGRATOR

LOG_STREAM_KEY: Final = "logs"
LOG_LINE_TTL_S: Final = 24 * 3600
LOG_STREAM_TTL_S: Final = 2 * LOG_LINE_TTL_S
"""With a TTL Redis may evict it if full, after all views and outputs; else there would be no room for task messages."""
STREAM_ENTRIES_MAX: Final = 50_000
_OWNER: Final = b"integrator"
_CHUNK: Final = 500
_ALL_LINES: Final = 999_999  # a position after all lines of an entry
_CURSOR: Final = re.compile(r"(\d{1,15})-(\d{1,10})-(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class LogCursor:
    """A position between two lines: the entry of the stream, and the number of its lines before the position."""

    ms: int
    entry: int
    lines: int

    @classmethod
    def parse(cls, text: str) -> LogCursor | None:
        """Parse the text form of a cursor; None if it is not valid."""
        match = _CURSOR.fullmatch(text)
        return None if match is None else cls(*map(int, match.groups()))

    def __str__(self) -> str:
        return f"{self.ms}-{self.entry}-{self.lines}"


@dataclass(frozen=True)
class LogFilter:
    """A filter of log lines; None means any, and a ``scope`` of None the lines of every integrator."""

    scope: Scope
    agent: str | None = None
    level: str | None = None
    execution_id: str | None = None

    @cached_property
    def _byte_patterns(self) -> tuple[bytes, ...]:
        """The bytes that every matching line contains, so that most entries are skipped without parsing."""
        fields = {"agent_name": self.agent, "level": self.level, "execution_id": self.execution_id}
        return tuple(orjson.dumps({name: value})[1:-1] for name, value in fields.items() if value is not None)

    def may_match(self, entry: Mapping[bytes, bytes]) -> bool:
        """Return False if no line of an entry can match; parsing all entries of a day would take seconds."""
        if self.scope is not None and entry.get(_OWNER, PUBLIC_INTEGRATOR.encode()) != self.scope.encode():
            return False
        return all(pattern in entry[b"lines"] for pattern in self._byte_patterns)

    def matches(self, line: dict[str, Any]) -> bool:
        """Return whether a line passes the filter."""
        return (
            (self.agent is None or line["agent_name"] == self.agent)
            and (self.level is None or line["level"] == self.level)
            and (self.execution_id is None or line["execution_id"] == self.execution_id)
        )


def append_lines(pipe: Any, integrator: str, lines: Sequence[bytes]) -> None:
    """Append to ``pipe`` the commands that add lines (JSON objects) to the stream, cap it and extend its TTL."""
    if lines:
        entry: dict[Any, Any] = {"lines": b"[" + b",".join(lines) + b"]"}
        if integrator != PUBLIC_INTEGRATOR:
            entry[_OWNER] = integrator
        pipe.xadd(LOG_STREAM_KEY, entry, maxlen=STREAM_ENTRIES_MAX, approximate=True)
        pipe.expire(LOG_STREAM_KEY, LOG_STREAM_TTL_S)


def trim_stream(pipe: Any) -> None:
    """Append to ``pipe`` the command that deletes the lines older than a day."""
    oldest_ms = int((time.time() - LOG_LINE_TTL_S) * 1_000)  # the stream's ids are Redis's time
    pipe.xtrim(LOG_STREAM_KEY, minid=oldest_ms, approximate=True)


@dataclass(frozen=True, slots=True)
class LogStreamPage:
    """Lines, oldest first, and the cursor to read on: after the last line, or at the end of what was searched."""

    lines: list[dict[str, Any]]
    next_cursor: LogCursor


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The start of the stream (epoch ms); ``older_lines`` are lines in it with an earlier time, as (execution, seq)."""

    ms: int
    older_lines: frozenset[tuple[str, int]]


def read_after(client: redis.Redis, since: LogCursor, log_filter: LogFilter, limit: int) -> LogStreamPage:
    """Return the first ``limit`` matching lines after the cursor ``since``. Raises RedisError."""
    lines: list[dict[str, Any]] = []
    next_cursor = since
    after_id = f"{since.ms}-{since.entry}"
    while len(lines) < limit:
        chunk: list[Any] = client.xrange(LOG_STREAM_KEY, min=after_id, count=_CHUNK)  # type: ignore[assignment]
        for entry in chunk:
            if not log_filter.may_match(entry[1]):
                next_cursor = max(next_cursor, _cursor_after(entry)) if len(lines) < limit else next_cursor
                continue
            for cursor, line in _lines_of(*entry):
                if cursor > since and len(lines) < limit:
                    next_cursor = cursor
                    if log_filter.matches(line):
                        lines.append(line)
        if len(chunk) < _CHUNK:
            break
        after_id = f"({chunk[-1][0].decode()}"
    return LogStreamPage(lines, next_cursor)


def read_latest(client: redis.Redis, log_filter: LogFilter, limit: int) -> LogStreamPage:
    """Return the latest ``limit`` matching lines; ``next_cursor`` continues with later lines. Raises RedisError."""
    lines: list[dict[str, Any]] = []
    next_cursor = LogCursor(_now_ms(client), 0, 0)  # read before the stream, else a line added in between is skipped
    before_id = "+"
    while len(lines) < limit:
        chunk: list[Any] = client.xrevrange(LOG_STREAM_KEY, max=before_id, count=_CHUNK)  # type: ignore[assignment]
        if before_id == "+" and chunk:
            next_cursor = _cursor_after(chunk[0])
        for entry in chunk:
            if log_filter.may_match(entry[1]):
                lines += [line for _, line in reversed(_lines_of(*entry)) if log_filter.matches(line)]
        if len(chunk) < _CHUNK:
            break
        before_id = f"({chunk[-1][0].decode()}"
    return LogStreamPage(lines[:limit][::-1], next_cursor)


def contains(client: redis.Redis, since: LogCursor) -> bool:
    """Return whether the stream still has the line before the cursor ``since``. Raises RedisError."""
    return bool(client.xrange(LOG_STREAM_KEY, max=f"{since.ms}-{since.entry}", count=1))


def read_stream_start(client: redis.Redis) -> StreamStart:
    """Return the start of the stream; now if it is empty. Raises RedisError."""
    now_ms = _now_ms(client)
    chunk: list[Any] = client.xrange(LOG_STREAM_KEY, count=_CHUNK)  # type: ignore[assignment]
    if not chunk:
        return StreamStart(now_ms, frozenset())
    first_ms = int(chunk[0][0].decode().partition("-")[0])
    # An agent's lines are added in batches, some time after they were logged.
    timestamped = ((timestamp_ms_of(line), line) for entry in chunk for _, line in _lines_of(*entry))
    older_lines = frozenset((line["execution_id"], line["seq"]) for ms, line in timestamped if ms < first_ms)
    return StreamStart(first_ms, older_lines)


def timestamp_ms_of(line: dict[str, Any]) -> int:
    """Return the time of a line in milliseconds since 1970."""
    return round(datetime.fromisoformat(line["timestamp"]).timestamp() * 1_000)


def _now_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1_000 + int(micros) // 1_000


def _cursor_after(entry: tuple[bytes, dict[bytes, bytes]]) -> LogCursor:
    ms, _, number = entry[0].decode().partition("-")
    return LogCursor(int(ms), int(number), _ALL_LINES)


def _lines_of(entry_id: bytes, fields: dict[bytes, bytes]) -> list[tuple[LogCursor, dict[str, Any]]]:
    ms, _, entry = entry_id.decode().partition("-")
    lines = orjson.loads(fields[b"lines"])
    return [(LogCursor(int(ms), int(entry), number), line) for number, line in enumerate(lines, 1)]
