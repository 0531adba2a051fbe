"""POST /executions/poll: hundreds of runs in one request, of which only those come back that have changed.

One round trip to Redis, where revisions are compared, and for what Redis lacks one to MongoDB; what that does not find
is looked for once more. Whole polls are then read twenty at a time, for they may be large. Never a guess: what Redis
lacks while MongoDB is away makes it all a 503.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import flask
import orjson
import redis
import structlog

from api.hints.poll_hints import LEAST_MS, retry_after_s
from api.hints.view_hints import ViewHints
from api.http.cache_control import POLLED
from api.polling.execution_reader import ExecutionReader
from api.polling.execution_rows import Row, array, row_of
from api.polling.schemas import Asked
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC
from shared.live.redis_monitor import Pulse
from shared.live.render import render_status
from shared.live.revision_compare import Compared, compare
from shared.store.executions import port

WHOLE_BYTES_MAX: Final = 8 * 1024 * 1024
HINTED_MAX: Final = 32


@dataclass(slots=True)
class _Found:
    """What has been found so far; ``live`` are views of some that have not changed and are not done."""

    not_found: list[str]
    changed: list[bytes] = field(default_factory=list)
    live: list[bytes] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unchanged: int = 0

    @property
    def bytes_left(self) -> int:
        """How much more there is room for in the answer."""
        return WHOLE_BYTES_MAX - sum(map(len, self.changed))


class PollsOfMany:
    """Answers polls of many runs from Redis first, then from MongoDB."""

    def __init__(self, services: Services, monitor: Pulse, reader: ExecutionReader, view_hints: ViewHints) -> None:
        self._services = services
        self._monitor = monitor
        self._reader = reader
        self._view_hints = view_hints

    def answer(self, asked: Asked, *, whole: bool, warnings: Sequence[str] = ()) -> flask.Response:
        """Answer those of ``asked`` that have changed, as status views or ``whole``."""
        found = _Found(list(asked.no_ids))
        # The youngest are those that have to be polled the soonest, and an id begins with its second.
        revs = {each: asked.revs[each] for each in sorted(asked.revs, reverse=True)}
        compared = self._compared(revs, whole=whole)
        found.unchanged = compared.unchanged
        found.changed += compared.changed
        found.left_out += compared.left_out
        found.live += compared.live
        if compared.missing:
            self._look_in_store(found, {each: revs[each] for each in compared.missing}, whole=whole)
        return self._response(found, warnings)

    def _compared(self, revs: Mapping[str, int | None], *, whole: bool) -> Compared:
        if revs and self._monitor.last.connected:
            whole_bytes = WHOLE_BYTES_MAX if whole else 0
            try:
                return compare(self._services.redis, revs, whole_bytes=whole_bytes, live_max=HINTED_MAX)
            except redis.RedisError as away:
                structlog.get_logger().warning("Redis did not answer a poll of many", reason=str(away))
        return Compared(tuple(revs))

    def _look_in_store(self, found: _Found, revs: Mapping[str, int | None], *, whole: bool) -> None:
        """Find in MongoDB what Redis lacks; raises Unavailable where it is away.

        That a run is not there, or that it stands before what its caller knows, is said only once a majority has what
        the primary has: one just elected shows for a moment what a majority had a while ago.
        """
        compared = self._services.many.compare(PUBLIC, revs, HINTED_MAX - len(found.live))
        changed = [run for run in compared.changed if run.rev > (revs[run.id] or 0)]
        doubted = {run.id for run in compared.changed} - {run.id for run in changed} | set(compared.missing)
        self._note(found, compared)
        if doubted:
            doubtful = {each: rev for each, rev in revs.items() if each in doubted}
            again = self._services.many.compare(PUBLIC, doubtful, HINTED_MAX - len(found.live), newest=True)
            self._note(found, again)
            found.not_found += again.missing
            changed += again.changed
        if whole and changed:
            self._add_whole(found, [run.id for run in changed])
        else:
            found.changed += [render_status(run) for run in changed]

    @staticmethod
    def _note(found: _Found, compared: port.Compared) -> None:
        found.unchanged += compared.unchanged
        found.live += [render_status(run) for run in compared.live]

    def _add_whole(self, found: _Found, ids: Sequence[str]) -> None:
        """Add whole polls while there is room; one at least, or an answer might have none and lead nowhere."""
        if found.changed and found.bytes_left <= 0:
            found.left_out += ids
            return
        added = set()
        for record in self._services.many.records(PUBLIC, ids, found.bytes_left):
            view = self._reader.render(record)
            if found.changed and len(view) > found.bytes_left:
                break
            found.changed.append(view)
            added.add(record.execution.id)
        found.left_out += [each for each in ids if each not in added]

    def _response(self, found: _Found, warnings: Sequence[str]) -> flask.Response:
        rows = [row_of(view, self._view_hints) for view in found.changed]
        soonest = min(_hints([*rows, *(row_of(view, self._view_hints) for view in found.live)]), default=None)
        if found.left_out:
            soonest = LEAST_MS  # there is news to fetch
        told: dict[str, Any] = {
            "unchanged": found.unchanged,
            "not_found": found.not_found,
            "poll_after_ms": soonest,
        }
        if found.left_out:
            told["left_out"] = found.left_out
        if warnings:
            told["warnings"] = warnings
        headers = dict(POLLED)
        if soonest is not None:
            headers["Retry-After"] = str(retry_after_s(soonest))
        body = b'{"changed":' + array(rows) + b"," + orjson.dumps(told)[1:]
        return flask.Response(body, 200, headers, mimetype="application/json")


def _hints(rows: Sequence[Row]) -> Iterator[int]:
    return (row.poll_after_ms for row in rows if row.poll_after_ms is not None)
