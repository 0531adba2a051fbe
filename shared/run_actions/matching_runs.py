"""Runs that match the filter of a bulk action: only their positions, so that no page of them is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shared.domain.list_query import ListPosition, ListQuery
from shared.store.database import Database, db_call
from shared.store.list_filter import list_filter
from shared.store.readable_documents import read_whole_page, time_of
from shared.store.scope_filter import scope_filter

_PROJECTION: Final = {"created_at": 1}


def list_positions(
    database: Database, integrator: str, query: ListQuery, limit: int, after: ListPosition | None = None
) -> Sequence[ListPosition]:
    """Return the positions of at most ``limit`` runs of ``query`` after ``after``, the oldest first.

    One without such a position is logged and left out. Raises what the execution store raises.
    """
    with db_call(database, writes=False):
        matching = list_filter(scope_filter(integrator), query, after)
        found = database.collection("executions").find(matching, _PROJECTION)
        return read_whole_page(found.sort([("created_at", 1), ("_id", 1)]), _position_of, limit)


def _position_of(row: dict[str, Any]) -> ListPosition:
    return ListPosition(time_of(row, "created_at"), row["_id"])
