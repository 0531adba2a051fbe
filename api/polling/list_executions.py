"""GET /executions: finds executions by how they stand, page by page; the rows are what a poll of many shows of each."""

from __future__ import annotations

import flask
import orjson

from api.hints.view_hints import ViewHints
from api.http import list_cursors, query_params
from api.http.cache_control import PRIVATE_NO_CACHE_HEADERS
from api.http.cursor_codec import CursorKind
from api.polling.execution_rows import json_array, row_of
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.list_query import ListOrder, ListPosition, ListQuery
from shared.domain.status import ExecutionStatus
from shared.live.render import render_status


class ListHandler:
    """Replies with pages of executions."""

    def __init__(self, services: Services, view_hints: ViewHints) -> None:
        self._many = services.queries
        self._view_hints = view_hints

    def respond(self) -> flask.Response:
        """Return the page that this request asks for."""
        wanted, limit = _parse_filters(), query_params.limit()
        bound = orjson.dumps(wanted)
        cursor = query_params.text("cursor")
        after = None if cursor is None else ListPosition(*list_cursors.decode(CursorKind.EXECUTIONS, cursor, bound))
        found = self._many.list_page(PUBLIC_INTEGRATOR, wanted, limit + 1, after)
        page = found[:limit]
        next_cursor = None
        if len(found) > limit:
            place = page[-1].position
            next_cursor = list_cursors.encode(CursorKind.EXECUTIONS, place.at, place.id, bound)
        rows = [row_of(render_status(row.execution), self._view_hints) for row in page]
        body = b'{"executions":' + json_array(rows) + b',"next_cursor":' + orjson.dumps(next_cursor) + b"}"
        return flask.Response(body, 200, PRIVATE_NO_CACHE_HEADERS, mimetype="application/json")


def _parse_filters() -> ListQuery:
    """What this request asks for. A name or a tag that nothing can have is no fault: nothing has it."""
    return ListQuery(
        statuses=query_params.enum_values("status", ExecutionStatus),
        basket=query_params.text("basket"),
        tag=query_params.text("tag"),
        request_id=query_params.text("request_id"),
        retry_of=query_params.text("retry_of"),
        created_after=query_params.timestamp("created_after"),
        created_before=query_params.timestamp("created_before"),
        updated_since=query_params.timestamp("updated_since"),
        order=query_params.enum_value("order", ListOrder.NEWEST),
    )
