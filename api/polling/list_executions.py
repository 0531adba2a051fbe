"""GET /executions: finds executions by how they stand, page by page; the rows are what a poll of many shows of each."""

from __future__ import annotations

import flask
import orjson

from api.hints.view_hints import ViewHints
from api.http import list_cursors, query_params
from api.http.cache_control import POLLED
from api.http.cursor_codec import Kind
from api.polling.execution_rows import array, row_of
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC
from shared.domain.list_query import Order, Place, Wanted
from shared.domain.status import ExecutionStatus
from shared.live.render import render_status


class ExecutionList:
    """Replies with pages of executions."""

    def __init__(self, services: Services, view_hints: ViewHints) -> None:
        self._many = services.many
        self._view_hints = view_hints

    def page(self) -> flask.Response:
        """Return the page that this request asks for."""
        wanted, limit = _wanted(), query_params.limit()
        bound = orjson.dumps(wanted)
        cursor = query_params.text("cursor")
        after = None if cursor is None else Place(*list_cursors.decode(Kind.EXECUTIONS, cursor, bound))
        found = self._many.page(PUBLIC, wanted, limit + 1, after)
        page = found[:limit]
        next_cursor = None
        if len(found) > limit:
            place = page[-1].place
            next_cursor = list_cursors.encode(Kind.EXECUTIONS, place.at, place.id, bound)
        rows = [row_of(render_status(row.execution), self._view_hints) for row in page]
        body = b'{"executions":' + array(rows) + b',"next_cursor":' + orjson.dumps(next_cursor) + b"}"
        return flask.Response(body, 200, POLLED, mimetype="application/json")


def _wanted() -> Wanted:
    """What this request asks for. A name or a tag that nothing can have is no fault: nothing has it."""
    return Wanted(
        statuses=query_params.words("status", ExecutionStatus),
        basket=query_params.text("basket"),
        tag=query_params.text("tag"),
        request_id=query_params.text("request_id"),
        retry_of=query_params.text("retry_of"),
        created_after=query_params.moment("created_after"),
        created_before=query_params.moment("created_before"),
        updated_since=query_params.moment("updated_since"),
        order=query_params.word("order", Order.NEWEST),
    )
