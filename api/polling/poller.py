"""Polls of one execution: one Redis round trip whose bytes are sent unparsed, MongoDB if Redis has no view.

Never a guess: if Redis has no view and MongoDB does not reply, it is 503, and 404 only if MongoDB has no such run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import flask
import orjson
from flask.globals import request_ctx

from api.hints.view_hints import HintedView, ViewHints
from api.http.etags import is_known, rev_known
from api.http.long_poll import Held, Holder
from api.http.wait_preference import patience_asked
from api.polling.change_check import News
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.polling.field_selection import Portion, lies_beyond, portion_asked
from api.polling.replies import NOT_MODIFIED, poll_reply, with_warnings
from shared.bootstrap import Services
from shared.domain.execution import NEWEST, Record
from shared.live.render import head_of

_POLL_OPTIONS: Final = ("QUERY_STRING", "HTTP_IF_NONE_MATCH", "HTTP_PREFER")


@dataclass(frozen=True, slots=True)
class LatestView:
    """A rendered poll, and whether it was read ``from_store`` this very moment."""

    view: bytes
    from_store: bool = False


class Poller:
    """Replies to polls of one execution, from Redis first, then from MongoDB."""

    def __init__(self, services: Services, reader: ExecutionReader, view_hints: ViewHints, long_poller: Holder) -> None:
        self._views = services.views
        self._view_lifetime_s = services.settings.lease_s / 2
        self._reader = reader
        self._view_hints = view_hints
        self._long_poller = long_poller

    def poll(self, execution_id: str) -> flask.Response:
        """Return an execution as it stands, or 304 if the caller has this revision."""
        check_execution_id(execution_id)
        if not any(map(request_ctx.request.environ.get, _POLL_OPTIONS)):  # one look for all: most polls are plain
            view = self._view_hints.add_to(self._latest(execution_id).view)
            return poll_reply(view, view.json, 200)
        portion, patience, known = portion_asked(), patience_asked(), rev_known(execution_id)
        if patience.wait_s:
            held = self.hold(execution_id, News(patience, portion.page), patience.wait_s, known)
            return patience.note(self._reply(held.seen.view, portion), granted=held.granted)
        return self._reply(self._latest(execution_id, known).view, portion)

    def hold(self, execution_id: str, check: News, wait_s: float, min_rev: int = 0) -> Held[LatestView]:
        """Long poll: return the view as soon as ``check`` finds a change in it, or when ``wait_s`` are over."""
        return self._long_poller.hold(
            execution_id, wait_s, lambda: self._latest(execution_id, min_rev), lambda seen: check.is_in(seen.view),
            good_for_s=lambda seen: self._good_for_s(execution_id, seen),
        )  # fmt: skip

    def reply_with(self, record: Record, status: int, warnings: Sequence[str] = ()) -> flask.Response:
        """Return the poll of a run that was just written, with ``warnings`` if there are any."""
        view = self._view_hints.add_to(self._reader.render(record, NEWEST))
        return with_warnings(poll_reply(view, view.json, status), warnings)

    def _reply(self, view: bytes, portion: Portion) -> flask.Response:
        hinted = self._view_hints.add_to(view)
        if portion.is_all:
            known = is_known(hinted.head)
            return poll_reply(hinted, None, NOT_MODIFIED) if known else poll_reply(hinted, hinted.json, 200)
        return self._partial_reply(hinted, portion)

    def _partial_reply(self, hinted: HintedView, portion: Portion) -> flask.Response:
        """Return the selected fields and log lines; lines that the view lacks come from MongoDB."""
        parsed = orjson.loads(hinted.json)
        if is_known(hinted.head) and not lies_beyond(parsed, portion.page):
            return poll_reply(hinted, None, NOT_MODIFIED)
        body = portion.of_view(parsed)
        if body is None:
            record = self._reader.read(hinted.head.execution_id, page=portion.page, min_rev=hinted.head.rev)
            hinted = self._view_hints.add_to(self._reader.render(record, portion.page))
            body = portion.of(orjson.loads(hinted.json))
        return poll_reply(hinted, body, 200)

    def _good_for_s(self, execution_id: str, latest: LatestView) -> float:
        """Return how long a long poll may believe a view: as long as it lives, as a worker may have died since."""
        left_s = None if latest.from_store else self._reader.from_redis(lambda: self._views.left_s(execution_id))
        return self._view_lifetime_s if left_s is None else left_s

    def _latest(self, execution_id: str, min_rev: int = 0) -> LatestView:
        """Return the rendered poll with the newest log lines, never of a revision below ``min_rev``."""
        view = self._reader.from_redis(lambda: self._views.get(execution_id))
        if view is not None and (not min_rev or min_rev <= head_of(view).rev):
            return LatestView(view)
        record = self._reader.read(execution_id, page=NEWEST, min_rev=min_rev)
        view = self._reader.render(record, NEWEST)
        self._reader.from_redis(lambda: self._views.fill(execution_id, view, final=record.execution.done))
        return LatestView(view, from_store=True)
