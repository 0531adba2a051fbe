"""Pages of the log lines of all executions: from a Redis stream, and from MongoDB for lines it no longer has.

The stream has the lines in the order of their arrival, MongoDB (the archive) in the order of their timestamps. So there
are two kinds of positions to read on from, and a page continues from the archive to the stream only at the beginning of
the stream: read on from ``next_since``, each line comes exactly once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis
import structlog

from shared.bootstrap import Services
from shared.domain.execution import ExecutionRecord
from shared.ids import EXECUTION_ID_PATTERN
from shared.live import log_stream
from shared.live.erased_runs import without_erased
from shared.live.log_stream import LogCursor, LogFilter, StreamStart
from shared.live.redis_monitor import RedisMonitor
from shared.live.render import render_log_line

_EXECUTIONS_SEARCHED: Final = 1_000
_LINES_SEARCHED: Final = 20_000
_POSITION_TEXT: Final = re.compile(rf"([0-9]{{1,15}})\.({EXECUTION_ID_PATTERN.pattern})\.([0-9]{{1,9}})", re.ASCII)
_NO_STREAM: Final = StreamStart(2**63, frozenset())

LogLineJson = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class ArchivePosition:
    """The position of a log line in the archive (MongoDB): timestamp, execution and sequence number."""

    ms: int
    execution_id: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> ArchivePosition | None:
        """Return the position that ``text`` stands for; None if it has another form."""
        match = _POSITION_TEXT.fullmatch(text)
        return None if match is None else cls(int(match[1]), match[2], int(match[3]))

    @classmethod
    def of_line(cls, line: LogLineJson) -> ArchivePosition:
        """Return the position of ``line``."""
        return cls(log_stream.timestamp_ms_of(line), line["execution_id"], line["seq"])

    def __str__(self) -> str:
        return f"{self.ms}.{self.execution_id}.{self.seq}"


LogPosition = LogCursor | ArchivePosition | None


class LogPageReader:
    """Reads pages of log lines; raises the errors of the store if MongoDB is needed and away."""

    def __init__(self, services: Services, monitor: RedisMonitor) -> None:
        self._services = services
        self._monitor = monitor

    def read_page(
        self, log_filter: LogFilter, since: LogPosition, limit: int
    ) -> tuple[Sequence[LogLineJson], LogPosition]:
        """Return up to ``limit`` lines, oldest first (the latest, or those after ``since``), and the next position."""
        if self._monitor.last.is_connected:
            try:
                if since is None:
                    lines, position = self._read_latest(log_filter, limit)
                else:
                    lines, position = self._read_after(log_filter, since, limit)
                return without_erased(self._services.redis, lines), position
            except redis.RedisError as error:
                structlog.get_logger().warning("the log lines could not be read from Redis", reason=str(error))
        archived = self._read_archive(log_filter, since, _NO_STREAM)
        page = archived[-limit:] if since is None else archived[:limit]
        return page, ArchivePosition.of_line(page[-1]) if page else since

    def _read_latest(self, log_filter: LogFilter, limit: int) -> tuple[Sequence[LogLineJson], LogPosition]:
        client = self._services.redis
        newest = log_stream.read_latest(client, log_filter, limit)
        older: Sequence[LogLineJson] = ()
        if missing := limit - len(newest.lines):
            older = self._read_archive(log_filter, None, log_stream.read_stream_start(client))[-missing:]
        return [*older, *newest.lines], newest.next_cursor

    def _read_after(
        self, log_filter: LogFilter, since: LogCursor | ArchivePosition, limit: int
    ) -> tuple[Sequence[LogLineJson], LogPosition]:
        client = self._services.redis
        start = since if isinstance(since, LogCursor) else LogCursor(since.ms, 0, 0)
        older: list[LogLineJson] = []
        if not log_stream.contains(client, start):
            stream_start = log_stream.read_stream_start(client)
            older = self._read_archive(log_filter, since, stream_start)
            if len(older) >= limit:
                return older[:limit], ArchivePosition.of_line(older[limit - 1])
            start = max(start, LogCursor(stream_start.ms, 0, 0))
        newer = log_stream.read_after(client, start, log_filter, limit - len(older))
        if isinstance(since, ArchivePosition):
            return [*older, *(line for line in newer.lines if ArchivePosition.of_line(line) > since)], newer.next_cursor
        return [*older, *newer.lines], newer.next_cursor

    def _read_archive(self, log_filter: LogFilter, since: LogPosition, stream_start: StreamStart) -> list[LogLineJson]:
        """Return the lines in MongoDB between ``since`` and the beginning of the stream, in order."""
        matches = []
        for record in self._records(log_filter):
            for seq, event in enumerate(record.events, record.first_seq):
                line = orjson.loads(render_log_line(record.execution.id, seq, event))
                position = ArchivePosition.of_line(line)
                in_stream = position.ms >= stream_start.ms or (position.execution_id, seq) in stream_start.older_lines
                if not in_stream and log_filter.matches(line) and _is_after(position, since):
                    matches.append((position, line))
        return [line for _, line in sorted(matches, key=lambda pair: pair[0])]

    def _records(self, log_filter: LogFilter) -> Sequence[ExecutionRecord]:
        execution_id = log_filter.execution_id
        if execution_id is None:
            return self._services.queries.read_newest(log_filter.scope, _EXECUTIONS_SEARCHED, _LINES_SEARCHED)
        if not EXECUTION_ID_PATTERN.fullmatch(execution_id):
            return ()
        record = self._services.store.read(log_filter.scope, execution_id, outputs=())
        return () if record is None else (record,)


def _is_after(position: ArchivePosition, since: LogPosition) -> bool:
    if isinstance(since, ArchivePosition):
        return position > since
    return since is None or position.ms >= since.ms
