"""GET /executions/changes: what changed since a cursor, for one poll instead of thousands.

A page promises: whatever a majority had taken before its ``next_since`` was made, and no page before it has shown,
comes at or after that cursor. Whether all there is was shown (``caught_up``) is a word about this moment only.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import flask

from api.feed import cursors
from api.hints.poll_hints import POLL_AFTER_MIN_MS, retry_after_s
from api.http import query_params, version_prefix
from api.http.cache_control import private_no_cache
from api.http.long_poll import LongPoller
from api.http.wait_preference import parse_wait_preference
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.feed_position import FeedEnd, FeedPosition
from shared.domain.list_query import ListOrder
from shared.errors import CursorExpired, PositionExpired
from shared.live import pubsub
from shared.store.feed.reader import ChangedExecution, FeedPage, FeedQuery
from shared.timestamps import format_rfc3339

NOW: Final = "now"
FRESHNESS_MAX: Final = timedelta(seconds=3)
"""A feed that was whole less than this ago has a relay that lives; at rest it makes certain each second."""
SETTLE_DELAY: Final = timedelta(seconds=0.25)
"""Right after a batch the relay gathers the next one: for so long nobody can say that this is all."""
RECHECK_INTERVAL_S: Final = 5.0
"""How long a held request believes that there is nothing, where no wake-up comes: it may have been lost."""
FEED_POLL_AFTER_MAX_MS: Final = 5_000
STALE_POLL_AFTER_MS: Final = 2_000
_IDLE_SHARE: Final = 0.2
_JITTER: Final = 0.1
# A change may become a majority's, and so the feed's, a while after the moment that it bears.
_COMMIT_LAG_MAX: Final = timedelta(minutes=10)


class FeedHandler:
    """Answers pages of the feed, for whoever begins where."""

    def __init__(self, services: Services, long_poller: LongPoller) -> None:
        self._services = services
        self._long_poller = long_poller

    def resolve_since(self, since: str | None) -> FeedPosition | None:
        """Answer the place that ``since`` names; None stands for the oldest that is kept."""
        return None if since is None else self._resolve(since)

    def resolve_readable_since(self, since: str) -> FeedPosition:
        """Answer the place that ``since`` names, where the feed can be read from there on; raises CursorExpired."""
        place = self._resolve(since)
        try:
            self._services.feed_reader.read_page(PUBLIC_INTEGRATOR, place, FeedQuery(1))
        except PositionExpired:
            raise self.cursor_expired_error(place) from None
        return place

    def respond(self, start: FeedPosition | None) -> flask.Response:
        """Answer the page from ``start`` on that this request asks for, held until there is one; raises CursorExpired.

        Where a filter leaves nothing of what was read, a held request reads on from there.
        """
        wanted = FeedQuery(query_params.limit(), query_params.text("basket"), query_params.text("tag"))
        patience = parse_wait_preference()

        def look() -> FeedPage:
            nonlocal start
            page = self._services.feed_reader.read_page(PUBLIC_INTEGRATOR, start, wanted)
            start = page.next_position if not page.changes else start
            return page

        try:
            held = self._long_poller.hold(
                pubsub.FEED_TOPIC, patience.wait_s, look, lambda page: bool(page.changes) or not page.is_last,
                fresh_for_s=lambda _: RECHECK_INTERVAL_S,
            )  # fmt: skip
        except PositionExpired:
            raise self.cursor_expired_error(start) from None
        return patience.mark_applied(self._page_response(held.value), is_granted=held.is_granted)

    def cursor_expired_error(self, start: FeedPosition | None) -> CursorExpired:
        """Answer what a caller is told whose cursor the feed has outlived: the cursor of now, and what to list."""
        since = cursors.encode(self._services.feed_reader.end().position)
        listed = {"order": str(ListOrder.OLDEST)}
        if start is not None:
            listed = {
                "updated_since": format_rfc3339(start.as_of - _COMMIT_LAG_MAX) or "",
                "order": str(ListOrder.UPDATED),
            }
        resync = {"since": since, "list": f"{version_prefix.request_prefix()}/executions?{urlencode(listed)}"}
        return CursorExpired(
            "what changed after this cursor is no longer kept, or was missed; read all pages of resync.list, "
            "then go on with resync.since",
            resync=resync,
        )

    def _resolve(self, since: str) -> FeedPosition:
        return self._services.feed_reader.end().position if since == NOW else cursors.decode(since, parameter="since")

    def _page_response(self, page: FeedPage) -> flask.Response:
        now = self._services.clock.now_or_none()
        come_again_ms = poll_after_ms(page, now)
        response = flask.jsonify(
            changes=[_change_view(changed) for changed in page.changes],
            next_since=cursors.encode(page.next_position),
            caught_up=has_caught_up(page, now),
            poll_after_ms=come_again_ms,
        )
        response.headers["Retry-After"] = str(retry_after_s(come_again_ms))
        return private_no_cache(response)


def has_caught_up(page: FeedPage, now: datetime | None) -> bool:
    """True where nothing lies beyond ``page``, and a relay that lives has nothing under way as far as is known."""
    return page.is_last and now is not None and is_fresh(page.end, now) and now - page.end.written_at > SETTLE_DELAY


def is_fresh(end: FeedEnd, now: datetime) -> bool:
    """True where the feed was whole a moment ago; never where the clocks that say so are at odds."""
    return abs(now - end.watermark_at) < FRESHNESS_MAX


def poll_after_ms(page: FeedPage, now: datetime | None) -> int:
    """Answer when to ask again: soon where more is there, else after a fifth of the feed's rest, with jitter."""
    if not page.is_last:
        return POLL_AFTER_MIN_MS
    wanted: float = STALE_POLL_AFTER_MS
    if now is not None and is_fresh(page.end, now):
        wanted = (now - page.end.written_at) / timedelta(milliseconds=1) * _IDLE_SHARE
    return int(min(max(wanted * random.uniform(1 - _JITTER, 1 + _JITTER), POLL_AFTER_MIN_MS), FEED_POLL_AFTER_MAX_MS))  # noqa: S311


def _change_view(changed: ChangedExecution) -> dict[str, Any]:
    return {
        "execution_id": changed.execution_id,
        "status": changed.status,
        "done": changed.status.is_final,
        "rev": changed.rev,
        "basket_name": changed.basket_name,
        "tags": list(changed.tags),
    }
