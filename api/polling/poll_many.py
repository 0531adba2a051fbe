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

from api.hints.poll_hints import POLL_AFTER_MIN_MS, retry_after_s
from api.hints.view_hints import ViewHints
from api.http.cache_control import PRIVATE_NO_CACHE_HEADERS
from api.polling.execution_reader import ExecutionReader
from api.polling.execution_rows import ExecutionRow, json_array, row_of
from api.polling.schemas import PollManyRequest
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.live.redis_monitor import RedisMonitor
from shared.live.render import render_status
from shared.live.revision_compare import ViewComparison, compare_views
from shared.store.executions import port

FULL_VIEWS_BYTES_MAX: Final = 8 * 1024 * 1024
HINT_SAMPLE_MAX: Final = 32


@dataclass(slots=True)
class _PollManyResult:
    """What has been found so far; ``live`` are views of some that have not changed and are not done."""

    not_found: list[str]
    changed: list[bytes] = field(default_factory=list)
    live: list[bytes] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unchanged: int = 0

    @property
    def bytes_left(self) -> int:
        """How much more there is room for in the answer."""
        return FULL_VIEWS_BYTES_MAX - sum(map(len, self.changed))


class PollManyHandler:
    """Answers polls of many runs from Redis first, then from MongoDB."""

    def __init__(
        self, services: Services, monitor: RedisMonitor, reader: ExecutionReader, view_hints: ViewHints
    ) -> None:
        self._services = services
        self._monitor = monitor
        self._reader = reader
        self._view_hints = view_hints

    def respond(self, poll_request: PollManyRequest, *, is_full: bool, warnings: Sequence[str] = ()) -> flask.Response:
        """Answer those of ``asked`` that have changed, as status views or ``whole``."""
        found = _PollManyResult(list(poll_request.malformed_ids))
        # The youngest are those that have to be polled the soonest, and an id begins with its second.
        revs = {each: poll_request.revs[each] for each in sorted(poll_request.revs, reverse=True)}
        compared = self._compare_in_redis(revs, is_full=is_full)
        found.unchanged = compared.unchanged
        found.changed += compared.changed
        found.left_out += compared.omitted
        found.live += compared.live
        if compared.missing:
            self._compare_in_store(found, {each: revs[each] for each in compared.missing}, is_full=is_full)
        return self._build_response(found, warnings)

    def _compare_in_redis(self, revs: Mapping[str, int | None], *, is_full: bool) -> ViewComparison:
        if revs and self._monitor.last.is_connected:
            whole_bytes = FULL_VIEWS_BYTES_MAX if is_full else 0
            try:
                return compare_views(self._services.redis, revs, whole_bytes=whole_bytes, live_max=HINT_SAMPLE_MAX)
            except redis.RedisError as away:
                structlog.get_logger().warning("Redis did not answer a poll of many", reason=str(away))
        return ViewComparison(tuple(revs))

    def _compare_in_store(self, result: _PollManyResult, revs: Mapping[str, int | None], *, is_full: bool) -> None:
        """Find in MongoDB what Redis lacks; raises Unavailable where it is away.

        That a run is not there, or that it stands before what its caller knows, is said only once a majority has what
        the primary has: one just elected shows for a moment what a majority had a while ago.
        """
        compared = self._services.queries.compare_revisions(PUBLIC_INTEGRATOR, revs, HINT_SAMPLE_MAX - len(result.live))
        changed = [run for run in compared.changed if run.rev > (revs[run.id] or 0)]
        doubted = {run.id for run in compared.changed} - {run.id for run in changed} | set(compared.missing)
        self._merge_unchanged(result, compared)
        if doubted:
            doubtful = {each: rev for each, rev in revs.items() if each in doubted}
            again = self._services.queries.compare_revisions(
                PUBLIC_INTEGRATOR, doubtful, HINT_SAMPLE_MAX - len(result.live), causal=True
            )
            self._merge_unchanged(result, again)
            result.not_found += again.missing
            changed += again.changed
        if is_full and changed:
            self._add_full_views(result, [run.id for run in changed])
        else:
            result.changed += [render_status(run) for run in changed]

    @staticmethod
    def _merge_unchanged(result: _PollManyResult, compared: port.RevisionComparison) -> None:
        result.unchanged += compared.unchanged
        result.live += [render_status(run) for run in compared.live]

    def _add_full_views(self, result: _PollManyResult, ids: Sequence[str]) -> None:
        """Add whole polls while there is room; one at least, or an answer might have none and lead nowhere."""
        if result.changed and result.bytes_left <= 0:
            result.left_out += ids
            return
        added = set()
        for record in self._services.queries.read_many(PUBLIC_INTEGRATOR, ids, result.bytes_left):
            view = self._reader.render(record)
            if result.changed and len(view) > result.bytes_left:
                break
            result.changed.append(view)
            added.add(record.execution.id)
        result.left_out += [each for each in ids if each not in added]

    def _build_response(self, result: _PollManyResult, warnings: Sequence[str]) -> flask.Response:
        rows = [row_of(view, self._view_hints) for view in result.changed]
        soonest = min(_poll_delays_ms([*rows, *(row_of(view, self._view_hints) for view in result.live)]), default=None)
        if result.left_out:
            soonest = POLL_AFTER_MIN_MS  # there is news to fetch
        told: dict[str, Any] = {
            "unchanged": result.unchanged,
            "not_found": result.not_found,
            "poll_after_ms": soonest,
        }
        if result.left_out:
            told["left_out"] = result.left_out
        if warnings:
            told["warnings"] = warnings
        headers = dict(PRIVATE_NO_CACHE_HEADERS)
        if soonest is not None:
            headers["Retry-After"] = str(retry_after_s(soonest))
        body = b'{"changed":' + json_array(rows) + b"," + orjson.dumps(told)[1:]
        return flask.Response(body, 200, headers, mimetype="application/json")


def _poll_delays_ms(rows: Sequence[ExecutionRow]) -> Iterator[int]:
    return (row.poll_after_ms for row in rows if row.poll_after_ms is not None)
