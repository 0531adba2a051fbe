"""The MongoDB filter of a list of executions: the caller's filters, and the position after which a page begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from shared.domain.list_query import ListOrder, ListPosition, ListQuery

SORT_BY_ORDER: Final = {
    ListOrder.NEWEST: ("created_at", -1),
    ListOrder.OLDEST: ("created_at", 1),
    ListOrder.UPDATED: ("updated_at", 1),
}
_MS: Final = timedelta(milliseconds=1)
_LATEST_MOMENT: Final = datetime.max.replace(tzinfo=UTC) - _MS  # nothing was created in the millisecond after it

_Document = dict[str, Any]


def list_filter(owners: _Document, query: ListQuery, after: ListPosition | None) -> _Document:
    """Build the filter of a page; a caller's value is always a plain string or time, never an operator."""
    equal_to = {
        "basket_name": query.basket,
        "tags": query.tag,
        "request_id": query.request_id,
        "retry_of": query.retry_of,
        "reference": query.reference,
        "error.error_code": query.error_code,
    }
    conditions: _Document = owners | {"status": {"$exists": True}}
    conditions |= {field: str(value) for field, value in equal_to.items() if value is not None}
    if query.only_dead_letters:
        conditions["dead_letter"] = True
    if query.statuses:
        conditions["status"] = {"$in": [str(status) for status in query.statuses]}
    if query.idempotency_keys is not None:
        conditions["idempotency.key"] = {"$in": [str(key) for key in query.idempotency_keys]}
    if query.tag is not None:
        conditions["tags.0"] = {"$exists": True}  # the condition of the partial index on tags
    if query.updated_since is not None:
        conditions["updated_at"] = {"$gte": _ceil_to_ms(query.updated_since)}
    all_of: list[_Document] = []
    if query.created_after is not None:
        all_of.append({"created_at": {"$gt": query.created_after}})
    if query.created_before is not None:
        all_of.append({"created_at": {"$lt": _ceil_to_ms(query.created_before)}})
    if after is not None:
        sort_field, direction = SORT_BY_ORDER[query.order]
        all_of += _after_position(after, sort_field, "$gt" if direction > 0 else "$lt")
    return conditions | ({"$and": all_of} if all_of else {})


def _after_position(after: ListPosition, field: str, operator: str) -> list[_Document]:
    """Build the keyset condition of a page; the first part is implied by the second, but bounds the index scan."""
    return [
        {field: {f"{operator}e": after.at}},
        {"$or": [{field: {operator: after.at}}, {field: after.at, "_id": {operator: after.id}}]},
    ]


def _ceil_to_ms(at: datetime) -> datetime:
    """Round ``at`` up to the millisecond: the store has no finer times, and the driver rounds down."""
    excess = timedelta(microseconds=at.microsecond % 1_000)
    return at - excess + _MS if excess and at < _LATEST_MOMENT else at
