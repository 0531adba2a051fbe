"""GET /executions/changes: the change feed, page by page from a cursor: one poll instead of thousands.

Guarantee of a page: each change that was majority-committed before its ``next_since`` was made, and was not on this or
an earlier page, comes at or after that cursor. ``caught_up`` (no changes beyond the page) holds for this moment only.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import flask
import orjson

from api.auth.requested_scope import INTEGRATOR_PARAMETER, requested_scope
from api.feed import cursors
from api.hints.poll_hints import POLL_AFTER_MIN_MS, retry_after_s
from api.http import query_params, version_prefix
from api.http.cache_control import private_no_cache
from api.http.long_poll import LongPoller
from api.http.wait_preference import parse_wait_preference
from api.limits.limited_request import note_hint
from api.rows.row_fields import RowRenderer, parse_row_fields
from shared.bootstrap import Services
from shared.domain.access.caller import Caller, Scope
from shared.domain.feed_position import FeedEnd, FeedPosition
from shared.domain.list_query import ListOrder
from shared.errors import CursorExpired
from shared.live.signals import pubsub
from shared.store.feed.feed_errors import PositionExpired
from shared.store.feed.reader import ChangedExecution, FeedPage, FeedQuery
from shared.timestamps import format_rfc3339

NOW: Final = "now"
PAGE_PARAMETERS: Final = ("limit", "basket", "tag", "wait", "fields", INTEGRATOR_PARAMETER)
"""The query parameters of every page of the feed."""
FRESHNESS_MAX: Final = timedelta(seconds=3)
"""If the feed was complete less than this ago, its relay is alive; an idle relay confirms this each second."""
SETTLE_DELAY: Final = timedelta(seconds=0.25)
"""Right after a batch the relay collects the next one: during this time it is not certain that there is no more."""
RECHECK_INTERVAL_S: Final = 5.0
"""A held request without a wake-up reads the feed again after this time: the wake-up may have been lost."""
FEED_POLL_AFTER_MAX_MS: Final = 5_000
STALE_POLL_AFTER_MS: Final = 2_000
_IDLE_SHARE: Final = 0.2
_JITTER: Final = 0.1
# A change may be majority-committed, and so be in the feed, some time after its own timestamp.
_COMMIT_LAG_MAX: Final = timedelta(minutes=10)


class FeedHandler:
    """Replies with pages of the feed from a given position, for cursors of callers and of named consumers."""

    def __init__(self, services: Services, long_poller: LongPoller, row_renderer: RowRenderer) -> None:
        self._services = services
        self._row_renderer = row_renderer
        self._long_poller = long_poller

    def resolve(self, since: str) -> FeedPosition:
        """Return the position of the cursor ``since``, which may be ``now``."""
        return self._services.feed_reader.end().position if since == NOW else cursors.decode(since, parameter="since")

    def resolve_readable(self, scope: Scope, since: str) -> FeedPosition:
        """Return the position of ``since``; raises CursorExpired if the feed cannot be read from there."""
        position = self.resolve(since)
        try:
            self._services.feed_reader.read_page(scope, position, FeedQuery(1))
        except PositionExpired:
            raise self._cursor_expired_error(position) from None
        return position

    def require_reached(self, position: FeedPosition) -> FeedEnd:
        """Return the feed's end; raises CursorExpired for a position after it."""
        try:
            return self._services.feed_reader.require_reached(position)
        except PositionExpired:
            raise self._cursor_expired_error(position) from None

    def respond(self, caller: Caller, start: FeedPosition | None) -> flask.Response:
        """Return the page of changes from ``start`` on (None: the oldest kept), by long poll if the request waits.

        It has the changes of the caller's scope. If the filter removes all changes that were read, a held request reads
        on from there. Raises CursorExpired.
        """
        scope, fields = requested_scope(caller), parse_row_fields(caller)
        query = FeedQuery(query_params.limit(), query_params.text("basket"), query_params.text("tag"))
        preference = parse_wait_preference()

        def read_page(_: bytes | None) -> FeedPage:
            nonlocal start
            page = self._services.feed_reader.read_page(scope, start, query)
            start = page.next_position if not page.changes else start
            return page

        try:
            held = self._long_poller.hold(
                pubsub.FEED_TOPIC, preference.wait_s, read_page, lambda page: bool(page.changes) or not page.is_last,
                fresh_for_s=lambda _: RECHECK_INTERVAL_S,
            )  # fmt: skip
        except PositionExpired:
            raise self._cursor_expired_error(start) from None
        return preference.mark_applied(
            self._page_response(caller, scope, held.value, fields), is_granted=held.is_granted
        )

    def _cursor_expired_error(self, start: FeedPosition | None) -> CursorExpired:
        """Return the error for a cursor that cannot be read from, with a new one and the list by which to catch up."""
        end = self._services.feed_reader.end().position
        since = cursors.encode(end)
        list_params = {"order": str(ListOrder.OLDEST)}
        if start is not None:
            # After a restore the cursor is newer than the store: its runs may be older than the cursor.
            list_params = {
                "updated_since": format_rfc3339(min(start.as_of, end.as_of) - _COMMIT_LAG_MAX) or "",
                "order": str(ListOrder.UPDATED),
            }
        resync = {"since": since, "list": f"{version_prefix.request_prefix()}/executions?{urlencode(list_params)}"}
        return CursorExpired(
            "what changed after this cursor is no longer kept, was missed, or was lost when the store was restored; "
            "read all pages of resync.list, then go on with resync.since",
            resync=resync,
        )

    def _page_response(
        self, caller: Caller, scope: Scope, page: FeedPage, fields: Collection[str] | None
    ) -> flask.Response:
        now = self._services.clock.now_or_none()
        delay_ms = poll_after_ms(page, now)
        note_hint(delay_ms)
        response = flask.jsonify(
            changes=self._change_views(caller, scope, page, fields),
            next_since=cursors.encode(page.next_position),
            caught_up=has_caught_up(page, now),
            poll_after_ms=delay_ms,
        )
        response.headers["Retry-After"] = str(retry_after_s(delay_ms))
        return private_no_cache(response)

    def _change_views(
        self, caller: Caller, scope: Scope, page: FeedPage, fields: Collection[str] | None
    ) -> Sequence[object]:
        if fields is None:
            return [_change_view(change) for change in page.changes]
        revs = {change.execution_id: change.rev for change in page.changes}
        return [orjson.Fragment(row) for row in self._row_renderer.render_changed(caller, scope, revs, fields)]


def has_caught_up(page: FeedPage, now: datetime | None) -> bool:
    """Return whether there is nothing beyond ``page``, and a live relay has no batch under way as far as is known."""
    return page.is_last and now is not None and is_fresh(page.end, now) and now - page.end.written_at > SETTLE_DELAY


def is_fresh(end: FeedEnd, now: datetime) -> bool:
    """Return whether the feed was complete a moment ago; False too if the clocks differ by more than that."""
    return abs(now - end.watermark_at) < FRESHNESS_MAX


def poll_after_ms(page: FeedPage, now: datetime | None) -> int:
    """Return when to poll again: soon if there is more, else after a fifth of the feed's idle time, with jitter."""
    if not page.is_last:
        return POLL_AFTER_MIN_MS
    delay_ms: float = STALE_POLL_AFTER_MS
    if now is not None and is_fresh(page.end, now):
        delay_ms = (now - page.end.written_at) / timedelta(milliseconds=1) * _IDLE_SHARE
    return int(min(max(delay_ms * random.uniform(1 - _JITTER, 1 + _JITTER), POLL_AFTER_MIN_MS), FEED_POLL_AFTER_MAX_MS))  # noqa: S311


def _change_view(change: ChangedExecution) -> dict[str, Any]:
    return {
        "execution_id": change.execution_id,
        "status": change.status,
        "done": change.status.is_final,
        "rev": change.rev,
        "basket_name": change.basket_name,
        "tags": list(change.tags),
        **({} if change.reference is None else {"reference": change.reference}),
    }
