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
from api.hints.poll_hints import LEAST_MS, retry_after_s
from api.http import query_params, version_prefix
from api.http.cache_control import polled
from api.http.long_poll import Holder
from api.http.wait_preference import patience_asked
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC
from shared.domain.feed_position import End, Place
from shared.domain.list_query import Order
from shared.errors import CursorExpired, PlaceExpired
from shared.live import pubsub
from shared.store.feed.reader import Changed, FeedPage, Wanted
from shared.timestamps import format_rfc3339

NOW: Final = "now"
FRESH: Final = timedelta(seconds=3)
"""A feed that was whole less than this ago has a relay that lives; at rest it makes certain each second."""
SETTLED: Final = timedelta(seconds=0.25)
"""Right after a batch the relay gathers the next one: for so long nobody can say that this is all."""
LOOKS_AGAIN_S: Final = 5.0
"""How long a held request believes that there is nothing, where no wake-up comes: it may have been lost."""
MOST_MS: Final = 5_000
BEHIND_MS: Final = 2_000
_OF_REST: Final = 0.2
_JITTER: Final = 0.1
# A change may become a majority's, and so the feed's, a while after the moment that it bears.
_LATE_MAX: Final = timedelta(minutes=10)


class Feed:
    """Answers pages of the feed, for whoever begins where."""

    def __init__(self, services: Services, long_poller: Holder) -> None:
        self._services = services
        self._long_poller = long_poller

    def start(self, since: str | None) -> Place | None:
        """Answer the place that ``since`` names; None stands for the oldest that is kept."""
        return None if since is None else self._named(since)

    def begin(self, since: str) -> Place:
        """Answer the place that ``since`` names, where the feed can be read from there on; raises CursorExpired."""
        place = self._named(since)
        try:
            self._services.feed.page(PUBLIC, place, Wanted(1))
        except PlaceExpired:
            raise self.expired(place) from None
        return place

    def answer(self, start: Place | None) -> flask.Response:
        """Answer the page from ``start`` on that this request asks for, held until there is one; raises CursorExpired.

        Where a filter leaves nothing of what was read, a held request reads on from there.
        """
        wanted = Wanted(query_params.limit(), query_params.text("basket"), query_params.text("tag"))
        patience = patience_asked()

        def look() -> FeedPage:
            nonlocal start
            page = self._services.feed.page(PUBLIC, start, wanted)
            start = page.next if not page.changes else start
            return page

        try:
            held = self._long_poller.hold(
                pubsub.FEED, patience.wait_s, look, lambda page: bool(page.changes) or not page.is_last,
                good_for_s=lambda _: LOOKS_AGAIN_S,
            )  # fmt: skip
        except PlaceExpired:
            raise self.expired(start) from None
        return patience.note(self._shown(held.seen), granted=held.granted)

    def expired(self, start: Place | None) -> CursorExpired:
        """Answer what a caller is told whose cursor the feed has outlived: the cursor of now, and what to list."""
        since = cursors.encode(self._services.feed.end().place)
        listed = {"order": str(Order.OLDEST)}
        if start is not None:
            listed = {"updated_since": format_rfc3339(start.as_of - _LATE_MAX) or "", "order": str(Order.UPDATED)}
        resync = {"since": since, "list": f"{version_prefix.prefix()}/executions?{urlencode(listed)}"}
        return CursorExpired(
            "what changed after this cursor is no longer kept, or was missed; read all pages of resync.list, "
            "then go on with resync.since",
            resync=resync,
        )

    def _named(self, since: str) -> Place:
        return self._services.feed.end().place if since == NOW else cursors.decode(since, told_in="since")

    def _shown(self, page: FeedPage) -> flask.Response:
        now = self._services.clock.glance()
        come_again_ms = poll_after_ms(page, now)
        response = flask.jsonify(
            changes=[_change(changed) for changed in page.changes],
            next_since=cursors.encode(page.next),
            caught_up=has_caught_up(page, now),
            poll_after_ms=come_again_ms,
        )
        response.headers["Retry-After"] = str(retry_after_s(come_again_ms))
        return polled(response)


def has_caught_up(page: FeedPage, now: datetime | None) -> bool:
    """True where nothing lies beyond ``page``, and a relay that lives has nothing under way as far as is known."""
    return page.is_last and now is not None and is_fresh(page.end, now) and now - page.end.at > SETTLED


def is_fresh(end: End, now: datetime) -> bool:
    """True where the feed was whole a moment ago; never where the clocks that say so are at odds."""
    return abs(now - end.through) < FRESH


def poll_after_ms(page: FeedPage, now: datetime | None) -> int:
    """Answer when to ask again: soon where more is there, else after a fifth of the feed's rest, with jitter."""
    if not page.is_last:
        return LEAST_MS
    wanted: float = BEHIND_MS
    if now is not None and is_fresh(page.end, now):
        wanted = (now - page.end.at) / timedelta(milliseconds=1) * _OF_REST
    return int(min(max(wanted * random.uniform(1 - _JITTER, 1 + _JITTER), LEAST_MS), MOST_MS))  # noqa: S311


def _change(changed: Changed) -> dict[str, Any]:
    return {
        "execution_id": changed.execution_id,
        "status": changed.status,
        "done": changed.status.is_final,
        "rev": changed.rev,
        "basket_name": changed.basket_name,
        "tags": list(changed.tags),
    }
