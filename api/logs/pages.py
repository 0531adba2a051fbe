"""Pages of the log lines of all executions: from Redis's stream, and from MongoDB where the stream has forgotten.

The stream keeps lines in the order in which they came, MongoDB by the moment at which they were said. So there are
two sorts of places to read on from, and a page goes from the archive over to the stream only at the stream's
beginning: read on from ``next_since``, every line comes once.
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
from shared.domain.execution import PUBLIC_INTEGRATOR, ExecutionRecord
from shared.ids import EXECUTION_ID_PATTERN
from shared.live import log_stream
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
    """A line's place in the archive."""

    ms: int
    execution_id: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> ArchivePosition | None:
        """Answer the place that ``text`` was made from; None where it is none of ours."""
        found = _POSITION_TEXT.fullmatch(text)
        return None if found is None else cls(int(found[1]), found[2], int(found[3]))

    @classmethod
    def of_line(cls, line: LogLineJson) -> ArchivePosition:
        """Answer where ``line`` lies."""
        return cls(log_stream.timestamp_ms_of(line), line["execution_id"], line["seq"])

    def __str__(self) -> str:
        return f"{self.ms}.{self.execution_id}.{self.seq}"


LogPosition = LogCursor | ArchivePosition | None


class LogPageReader:
    """Reads pages of log lines; raises what the store raises where MongoDB is needed and away."""

    def __init__(self, services: Services, monitor: RedisMonitor) -> None:
        self._services = services
        self._monitor = monitor

    def read_page(
        self, log_filter: LogFilter, since: LogPosition, limit: int
    ) -> tuple[Sequence[LogLineJson], LogPosition]:
        """Answer at most ``limit`` lines, oldest first, and where to read on: the latest, or those after ``since``."""
        if self._monitor.last.is_connected:
            try:
                if since is None:
                    return self._read_latest(log_filter, limit)
                return self._read_after(log_filter, since, limit)
            except redis.RedisError as away:
                structlog.get_logger().warning("Redis did not give log lines", reason=str(away))
        found = self._read_archive(log_filter, since, _NO_STREAM)
        shown = found[-limit:] if since is None else found[:limit]
        return shown, ArchivePosition.of_line(shown[-1]) if shown else since

    def _read_latest(self, log_filter: LogFilter, limit: int) -> tuple[Sequence[LogLineJson], LogPosition]:
        newest = log_stream.read_latest(self._services.redis, log_filter, limit)
        missing = limit - len(newest.lines)
        older = (
            self._read_archive(log_filter, None, log_stream.read_stream_start(self._services.redis))[-missing:]
            if missing
            else []
        )
        return [*older, *newest.lines], newest.next_cursor

    def _read_after(
        self, log_filter: LogFilter, since: LogCursor | ArchivePosition, limit: int
    ) -> tuple[Sequence[LogLineJson], LogPosition]:
        client = self._services.redis
        start = since if isinstance(since, LogCursor) else LogCursor(since.ms, 0, 0)
        older: list[LogLineJson] = []
        if not log_stream.contains(client, start):
            beginning = log_stream.read_stream_start(client)
            older = self._read_archive(log_filter, since, beginning)
            if len(older) >= limit:
                return older[:limit], ArchivePosition.of_line(older[limit - 1])
            start = max(start, LogCursor(beginning.ms, 0, 0))
        newer = log_stream.read_after(client, start, log_filter, limit - len(older))
        seen = since if isinstance(since, ArchivePosition) else None
        return [
            *older,
            *(line for line in newer.lines if seen is None or ArchivePosition.of_line(line) > seen),
        ], newer.next_cursor

    def _read_archive(self, log_filter: LogFilter, since: LogPosition, beginning: StreamStart) -> list[LogLineJson]:
        """The lines in MongoDB from ``since`` on to where the stream begins, in their order."""
        found = []
        for record in self._records(log_filter):
            for seq, event in enumerate(record.events, record.first_seq):
                line = orjson.loads(render_log_line(record.execution.id, seq, event))
                place = ArchivePosition.of_line(line)
                is_told = place.ms >= beginning.ms or (place.execution_id, seq) in beginning.older_lines
                if not is_told and log_filter.matches(line) and _is_after(place, since):
                    found.append((place, line))
        return [line for _, line in sorted(found, key=lambda pair: pair[0])]

    def _records(self, log_filter: LogFilter) -> Sequence[ExecutionRecord]:
        named = log_filter.execution_id
        if named is None:
            return self._services.store.read_newest(_EXECUTIONS_SEARCHED, _LINES_SEARCHED)
        record = (
            self._services.store.read(PUBLIC_INTEGRATOR, named, outputs=())
            if EXECUTION_ID_PATTERN.fullmatch(named)
            else None
        )
        return () if record is None else (record,)


def _is_after(place: ArchivePosition, since: LogPosition) -> bool:
    if isinstance(since, ArchivePosition):
        return place > since
    return since is None or place.ms >= since.ms
