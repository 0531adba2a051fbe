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
from shared.domain.execution import PUBLIC, Record
from shared.ids import EXECUTION_ID
from shared.live import log_stream
from shared.live.log_stream import Beginning, Cursor, Wanted
from shared.live.redis_monitor import Pulse
from shared.live.render import line_shown

_EXECUTIONS_SEARCHED: Final = 1_000
_LINES_SEARCHED: Final = 20_000
_PLACE: Final = re.compile(rf"([0-9]{{1,15}})\.({EXECUTION_ID.pattern})\.([0-9]{{1,9}})", re.ASCII)
_NEVER_BEGUN: Final = Beginning(2**63, frozenset())

Line = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line's place in the archive."""

    ms: int
    execution_id: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Answer the place that ``text`` was made from; None where it is none of ours."""
        found = _PLACE.fullmatch(text)
        return None if found is None else cls(int(found[1]), found[2], int(found[3]))

    @classmethod
    def of(cls, line: Line) -> Place:
        """Answer where ``line`` lies."""
        return cls(log_stream.ms_of(line), line["execution_id"], line["seq"])

    def __str__(self) -> str:
        return f"{self.ms}.{self.execution_id}.{self.seq}"


Since = Cursor | Place | None


class LogPages:
    """Reads pages of log lines; raises what the store raises where MongoDB is needed and away."""

    def __init__(self, services: Services, monitor: Pulse) -> None:
        self._services = services
        self._monitor = monitor

    def page(self, wanted: Wanted, since: Since, limit: int) -> tuple[Sequence[Line], Since]:
        """Answer at most ``limit`` lines, oldest first, and where to read on: the latest, or those after ``since``."""
        if self._monitor.last.connected:
            try:
                if since is None:
                    return self._latest(wanted, limit)
                return self._after(wanted, since, limit)
            except redis.RedisError as away:
                structlog.get_logger().warning("Redis did not give log lines", reason=str(away))
        found = self._archived(wanted, since, _NEVER_BEGUN)
        shown = found[-limit:] if since is None else found[:limit]
        return shown, Place.of(shown[-1]) if shown else since

    def _latest(self, wanted: Wanted, limit: int) -> tuple[Sequence[Line], Since]:
        newest = log_stream.latest(self._services.redis, wanted, limit)
        missing = limit - len(newest.lines)
        older = self._archived(wanted, None, log_stream.beginning(self._services.redis))[-missing:] if missing else []
        return [*older, *newest.lines], newest.end

    def _after(self, wanted: Wanted, since: Cursor | Place, limit: int) -> tuple[Sequence[Line], Since]:
        client = self._services.redis
        start = since if isinstance(since, Cursor) else Cursor(since.ms, 0, 0)
        older: list[Line] = []
        if not log_stream.reaches(client, start):
            beginning = log_stream.beginning(client)
            older = self._archived(wanted, since, beginning)
            if len(older) >= limit:
                return older[:limit], Place.of(older[limit - 1])
            start = max(start, Cursor(beginning.ms, 0, 0))
        newer = log_stream.after(client, start, wanted, limit - len(older))
        seen = since if isinstance(since, Place) else None
        return [*older, *(line for line in newer.lines if seen is None or Place.of(line) > seen)], newer.end

    def _archived(self, wanted: Wanted, since: Since, beginning: Beginning) -> list[Line]:
        """The lines in MongoDB from ``since`` on to where the stream begins, in their order."""
        found = []
        for record in self._records(wanted):
            for seq, event in enumerate(record.events, record.first_seq):
                line = orjson.loads(line_shown(record.execution.id, seq, event))
                place = Place.of(line)
                is_told = place.ms >= beginning.ms or (place.execution_id, seq) in beginning.early
                if not is_told and wanted.admits(line) and _lies_after(place, since):
                    found.append((place, line))
        return [line for _, line in sorted(found, key=lambda pair: pair[0])]

    def _records(self, wanted: Wanted) -> Sequence[Record]:
        named = wanted.execution_id
        if named is None:
            return self._services.store.newest(_EXECUTIONS_SEARCHED, _LINES_SEARCHED)
        record = self._services.store.read(PUBLIC, named, outputs=()) if EXECUTION_ID.fullmatch(named) else None
        return () if record is None else (record,)


def _lies_after(place: Place, since: Since) -> bool:
    if isinstance(since, Place):
        return place > since
    return since is None or place.ms >= since.ms
