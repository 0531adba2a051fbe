"""Polls and long polls of one execution: one Redis round trip whose bytes are sent unparsed, else MongoDB.

It never guesses: if Redis has no view and MongoDB does not reply, the status is 503; it is 404 only if MongoDB has no
such run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import flask
import orjson
from flask.globals import request_ctx

from api.hints.view_hints import HintedView, ViewHints
from api.http.etags import if_none_match_rev, matches_if_none_match
from api.http.long_poll import LongPoller, LongPollResult
from api.http.wait_preference import parse_wait_preference
from api.polling.change_check import ChangeCheck
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.polling.field_selection import FieldSelection, has_newer_lines, parse_field_selection
from api.polling.replies import NOT_MODIFIED, poll_response, with_warnings
from shared.bootstrap import Services
from shared.domain.execution import NEWEST_LOG_LINES, ExecutionRecord
from shared.live.render import parse_header

_POLL_OPTIONS: Final = ("QUERY_STRING", "HTTP_IF_NONE_MATCH", "HTTP_PREFER")


@dataclass(frozen=True, slots=True)
class FetchedView:
    """A rendered view, and whether it was read from MongoDB just now (``is_from_store``)."""

    view: bytes
    is_from_store: bool = False


class PollHandler:
    """Replies to polls of one execution, from Redis first, then from MongoDB."""

    def __init__(
        self, services: Services, reader: ExecutionReader, view_hints: ViewHints, long_poller: LongPoller
    ) -> None:
        self._views = services.views
        self._view_lifetime_s = services.settings.lease_s / 2
        self._reader = reader
        self._view_hints = view_hints
        self._long_poller = long_poller

    def poll(self, execution_id: str) -> flask.Response:
        """Return the present view of an execution, or 304 if the caller has this revision (``If-None-Match``)."""
        check_execution_id(execution_id)
        if not any(
            map(request_ctx.request.environ.get, _POLL_OPTIONS)
        ):  # one check for all options: most polls have none
            view = self._view_hints.add_to(self._fetch_view(execution_id).view)
            return poll_response(view, view.json, 200)
        selection, preference, known_rev = (
            parse_field_selection(),
            parse_wait_preference(),
            if_none_match_rev(execution_id),
        )
        if preference.wait_s:
            held = self.hold(execution_id, ChangeCheck(preference, selection.page), preference.wait_s, known_rev)
            return preference.mark_applied(self._respond(held.value.view, selection), is_granted=held.is_granted)
        return self._respond(self._fetch_view(execution_id, known_rev).view, selection)

    def hold(
        self, execution_id: str, check: ChangeCheck, wait_s: float, min_rev: int = 0
    ) -> LongPollResult[FetchedView]:
        """Long poll: return the view as soon as ``check`` finds a change in it, or after ``wait_s`` seconds."""
        return self._long_poller.hold(
            execution_id,
            wait_s,
            lambda: self._fetch_view(execution_id, min_rev),
            lambda fetched: check.has_changed(fetched.view),
            fresh_for_s=lambda fetched: self._fresh_for_s(execution_id, fetched),
        )

    def respond_with_record(self, record: ExecutionRecord, status: int, warnings: Sequence[str] = ()) -> flask.Response:
        """Return the poll of a run that was just written, with ``warnings`` as its last field if there are any."""
        view = self._view_hints.add_to(self._reader.render(record, NEWEST_LOG_LINES))
        return with_warnings(poll_response(view, view.json, status), warnings)

    def _respond(self, view: bytes, selection: FieldSelection) -> flask.Response:
        hinted = self._view_hints.add_to(view)
        if selection.is_all:
            is_unmodified = matches_if_none_match(hinted.head)
            return (
                poll_response(hinted, None, NOT_MODIFIED) if is_unmodified else poll_response(hinted, hinted.json, 200)
            )
        return self._partial_response(hinted, selection)

    def _partial_response(self, hinted: HintedView, selection: FieldSelection) -> flask.Response:
        """Return the selected fields and log lines; lines that the view lacks come from MongoDB."""
        parsed = orjson.loads(hinted.json)
        if matches_if_none_match(hinted.head) and not has_newer_lines(parsed, selection.page):
            return poll_response(hinted, None, NOT_MODIFIED)
        body = selection.select_from_newest(parsed)
        if body is None:
            record = self._reader.read(hinted.head.execution_id, page=selection.page, min_rev=hinted.head.rev)
            hinted = self._view_hints.add_to(self._reader.render(record, selection.page))
            body = selection.select(orjson.loads(hinted.json))
        return poll_response(hinted, body, 200)

    def _fresh_for_s(self, execution_id: str, latest: FetchedView) -> float:
        """Return how long a long poll may trust a view: until its TTL is over, as its worker may have died since."""
        ttl_s = None if latest.is_from_store else self._reader.try_redis(lambda: self._views.ttl_s(execution_id))
        return self._view_lifetime_s if ttl_s is None else ttl_s

    def _fetch_view(self, execution_id: str, min_rev: int = 0) -> FetchedView:
        """Return the rendered view with the newest log lines, never of a revision below ``min_rev``."""
        view = self._reader.try_redis(lambda: self._views.get(execution_id))
        if view is not None and (not min_rev or min_rev <= parse_header(view).rev):
            return FetchedView(view)
        record = self._reader.read(execution_id, page=NEWEST_LOG_LINES, min_rev=min_rev)
        view = self._reader.render(record, NEWEST_LOG_LINES)
        self._reader.try_redis(lambda: self._views.fill(execution_id, view, is_final=record.execution.is_done))
        return FetchedView(view, is_from_store=True)
