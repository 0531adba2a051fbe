"""GET /executions: lists executions by filters, page by page (keyset pagination); the rows are status views."""

from __future__ import annotations

from typing import Final

import flask
import orjson

from api.auth.requested_scope import INTEGRATOR_PARAMETER, requested_scope
from api.http import list_cursors, query_params
from api.http.cache_control import PRIVATE_NO_CACHE_HEADERS
from api.http.cursor_codec import CursorKind
from api.http.schema_fields import ITEMS_MAX
from api.rows.row_fields import RowRenderer, parse_row_fields
from shared.bootstrap import Services
from shared.domain.access.caller import Caller
from shared.domain.execution import batch_item_key
from shared.domain.list_query import ListOrder, ListPosition, ListQuery
from shared.domain.status import ExecutionStatus

PARAMETERS: Final = (
    "status", "basket", "tag", "request_id", "retry_of", "reference", "error_code", "idempotency_key", "created_after",
    "created_before", "updated_since", "order", "limit", "cursor", "fields", INTEGRATOR_PARAMETER,
)  # fmt: skip


def respond_with_list(caller: Caller, services: Services, row_renderer: RowRenderer) -> flask.Response:
    """Return the page of the list that this request of ``caller`` asks for."""
    query_params.check_known(*PARAMETERS)
    scope = requested_scope(caller)
    query, limit, fields = _parse_filters(), query_params.limit(), parse_row_fields(caller)
    query_bytes = orjson.dumps(query)
    cursor = query_params.text("cursor")
    after = None if cursor is None else ListPosition(*list_cursors.decode(CursorKind.EXECUTIONS, cursor, query_bytes))
    with_metadata = fields is not None and "metadata" in fields
    matches = services.queries.list_page(scope, query, limit + 1, after, with_metadata=with_metadata)
    page = matches[:limit]
    next_cursor = None
    if len(matches) > limit:
        last = page[-1].position
        next_cursor = list_cursors.encode(CursorKind.EXECUTIONS, last.at, last.id, query_bytes)
    rows = row_renderer.render(caller, scope, [row.execution for row in page], fields)
    body = b'{"executions":[' + b",".join(rows) + b'],"next_cursor":' + orjson.dumps(next_cursor) + b"}"
    return flask.Response(body, 200, PRIVATE_NO_CACHE_HEADERS, mimetype="application/json")


def _parse_idempotency_keys() -> tuple[str, ...] | None:
    """Return the keys of the runs of a submit, or of the items of a batch, that was sent with this key."""
    key = query_params.text("idempotency_key")
    return None if key is None else (key, *(batch_item_key(key, index) for index in range(ITEMS_MAX)))


def _parse_filters() -> ListQuery:
    """Parse the filters of this request; an impossible name or tag is no error: it matches nothing."""
    return ListQuery(
        statuses=query_params.enum_values("status", ExecutionStatus),
        basket=query_params.text("basket"),
        tag=query_params.text("tag"),
        request_id=query_params.text("request_id"),
        retry_of=query_params.text("retry_of"),
        reference=query_params.text("reference"),
        error_code=query_params.text("error_code"),
        idempotency_keys=_parse_idempotency_keys(),
        created_after=query_params.timestamp("created_after"),
        created_before=query_params.timestamp("created_before"),
        updated_since=query_params.timestamp("updated_since"),
        order=query_params.enum_value("order", ListOrder.NEWEST),
    )
