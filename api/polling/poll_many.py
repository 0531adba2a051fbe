"""POST /executions/poll: polls hundreds of runs in one request; only those that have changed are returned.

It takes one round trip to Redis, where revisions are compared, and one to MongoDB for the runs that Redis lacks; runs
that this does not find are looked up once more. Full views are then read twenty at a time, because they may be large.
It never guesses: if Redis lacks a run while MongoDB is away, the whole reply is a 503.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import flask
import orjson
import redis
import structlog

from api.auth import audit_note
from api.hints.poll_hints import POLL_AFTER_MIN_MS, ViewHints, retry_after_s
from api.http.cache_control import PRIVATE_NO_CACHE_HEADERS
from api.limits.limited_request import note_hint
from api.polling.execution_reader import ExecutionReader
from api.polling.field_selection import FULL_SELECTION, WITHOUT_PAYLOADS, FieldSelection
from api.polling.schemas import PollManyRequest
from shared.bootstrap import Services
from shared.domain.access.caller import Caller, Scope
from shared.domain.execution import ExecutionRecord
from shared.errors import ExecutionExpired, ExecutionNotFound, InternalError, SealBroken
from shared.live.redis_monitor import RedisMonitor
from shared.live.render import render_status
from shared.live.revision_compare import ViewComparison, compare_views
from shared.store.executions.queries import RevisionComparison

FULL_VIEWS_BYTES_MAX: Final = 8 * 1024 * 1024
HINT_SAMPLE_MAX: Final = 32
_ID_WITHIN_BYTES: Final = 64


@dataclass(slots=True)
class _PollManyResult:
    """The result so far; ``live`` are views of some runs that have not changed and are not done, for the poll hint."""

    not_found: list[str]
    unchanged_count: int = 0
    changed: list[bytes] = field(default_factory=list)
    live: list[bytes] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)

    @property
    def bytes_left(self) -> int:
        """How many bytes of views still fit into the reply."""
        return FULL_VIEWS_BYTES_MAX - sum(map(len, self.changed))

    def add_unchanged(self, compared: RevisionComparison) -> None:
        """Add what a comparison in MongoDB found unchanged."""
        self.unchanged_count += compared.unchanged
        self.live += [render_status(run) for run in compared.live]


class PollManyHandler:
    """Replies to polls of many runs, from Redis first, then from MongoDB."""

    def __init__(
        self, services: Services, monitor: RedisMonitor, reader: ExecutionReader, view_hints: ViewHints
    ) -> None:
        self._services = services
        self._monitor = monitor
        self._reader = reader
        self._view_hints = view_hints

    def respond(
        self, caller: Caller, poll_request: PollManyRequest, *, is_full: bool, warnings: Sequence[str]
    ) -> flask.Response:
        """Return those of the polled runs that have changed, as status views or full views (``is_full``).

        A run of another integrator is not found. A caller without payloads gets full views without them.
        """
        # The newest first: they have to be polled the soonest. An id begins with the second of its creation.
        revs = dict(sorted(poll_request.revs.items(), reverse=True))
        compared = self._compare_in_redis(caller.scope, revs, is_full=is_full)
        result = _PollManyResult(
            [*poll_request.malformed_ids],
            compared.unchanged,
            [*compared.changed],
            [*compared.live],
            [*compared.omitted],
        )
        if compared.missing:
            missing_revs = {run_id: revs[run_id] for run_id in compared.missing}
            self._compare_in_store(caller.scope, result, missing_revs, is_full=is_full)
        selection = FULL_SELECTION if caller.sees_payloads else WITHOUT_PAYLOADS
        audit_note.record_reads(map(_id_of_view, result.changed if is_full and caller.sees_payloads else ()))
        return self._build_response(result, warnings, selection, oldest=next(reversed(revs), None))

    def _compare_in_redis(self, scope: Scope, revs: Mapping[str, int | None], *, is_full: bool) -> ViewComparison:
        # The keys in Redis have the integrator, which an admin does not name: its polls of many read MongoDB.
        if scope is not None and revs and self._monitor.last.is_connected:
            whole_bytes = FULL_VIEWS_BYTES_MAX if is_full else 0
            try:
                client = self._services.redis
                return compare_views(client, scope, revs, whole_bytes=whole_bytes, live_max=HINT_SAMPLE_MAX)
            except redis.RedisError as error:
                structlog.get_logger().warning("Redis did not reply to a poll of many", reason=str(error))
        return ViewComparison(tuple(revs))

    def _compare_in_store(
        self, scope: Scope, result: _PollManyResult, revs: Mapping[str, int | None], *, is_full: bool
    ) -> None:
        """Compare the revisions that Redis lacks in MongoDB; raises Unavailable if MongoDB is away.

        A run that is missing, or has an older revision than its caller has seen, is read again in a causal session,
        which waits until a majority has what the primary has: a primary that was just elected serves older majority
        data for a moment.
        """
        compared = self._services.queries.compare_revisions(scope, revs, HINT_SAMPLE_MAX - len(result.live))
        changed = [run for run in compared.changed if run.rev > (revs[run.id] or 0)]
        unconfirmed_ids = {run.id for run in compared.changed} - {run.id for run in changed} | set(compared.missing)
        result.add_unchanged(compared)
        if unconfirmed_ids:
            unconfirmed_revs = {run_id: rev for run_id, rev in revs.items() if run_id in unconfirmed_ids}
            confirmed = self._services.queries.compare_revisions(
                scope, unconfirmed_revs, HINT_SAMPLE_MAX - len(result.live), causal=True
            )
            result.add_unchanged(confirmed)
            result.not_found += confirmed.missing
            changed += confirmed.changed
        if is_full and changed:
            self._add_full_views(scope, result, [run.id for run in changed])
        else:
            result.changed += [render_status(run) for run in changed]

    def _add_full_views(self, scope: Scope, result: _PollManyResult, ids: Sequence[str]) -> None:
        """Add full views while there is room, but at least one: without it the caller would make no progress."""
        if result.changed and result.bytes_left <= 0:
            result.omitted += ids
            return
        added = set()
        found = self._services.queries.read_many(scope, ids, result.bytes_left)
        unreadable = {*found.unreadable}
        for record in found.records:
            view = self._try_render(record)
            if view is None:
                unreadable.add(record.execution.id)
                continue
            if result.changed and len(view) > result.bytes_left:
                break
            result.changed.append(view)
            added.add(record.execution.id)
        result.not_found += [run_id for run_id in ids if run_id in unreadable]
        result.omitted += [run_id for run_id in ids if run_id not in added and run_id not in unreadable]

    def _try_render(self, record: ExecutionRecord) -> bytes | None:
        """Return the view of a run; None if a large output is damaged or lost: that hides none of the other runs."""
        try:
            return self._reader.render(record)
        except (SealBroken, InternalError, ExecutionNotFound, ExecutionExpired) as error:
            structlog.get_logger().error(
                "an execution cannot be shown", execution_id=record.execution.id, reason=str(error)
            )
            return None

    def _build_response(
        self, result: _PollManyResult, warnings: Sequence[str], selection: FieldSelection, oldest: str | None
    ) -> flask.Response:
        rows = [self._view_hints.add_to(view) for view in result.changed]
        hints = [row.hints for row in (*rows, *map(self._view_hints.add_to, result.live))]
        poll_after_ms = min((hint.poll_after_ms for hint in hints if hint.poll_after_ms is not None), default=None)
        if result.omitted:
            poll_after_ms = POLL_AFTER_MIN_MS  # the caller should fetch the rest at once
        if poll_after_ms is not None and oldest is not None and oldest not in result.not_found:
            # The oldest run stands for all: who polls these runs under other combinations gains nothing by it.
            note_hint(poll_after_ms, oldest)
        summary: dict[str, Any] = {
            "unchanged": result.unchanged_count,
            "not_found": result.not_found,
            "poll_after_ms": poll_after_ms,
        }
        if result.omitted:
            summary["left_out"] = result.omitted
        if warnings:
            summary["warnings"] = warnings
        views = [row.json if selection.is_all else selection.select(orjson.loads(row.json)) for row in rows]
        headers = dict(PRIVATE_NO_CACHE_HEADERS)
        if poll_after_ms is not None:
            headers["Retry-After"] = str(retry_after_s(poll_after_ms))
        body = b'{"changed":[' + b",".join(views) + b"]," + orjson.dumps(summary)[1:]
        return flask.Response(body, 200, headers, mimetype="application/json")


def _id_of_view(view: bytes) -> str:
    """Return the id of the run that a view shows; it is the first member."""
    return view[:_ID_WITHIN_BYTES].split(b'"', 4)[3].decode()
