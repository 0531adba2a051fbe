"""Runs that match the filter of a bulk action: only their positions, so that no page of them is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shared.domain.list_query import ListPosition, ListQuery
from shared.store.database import Database, db_call
from shared.store.executions.queries import list_filter
from shared.store.scope_filter import scope_filter

_PROJECTION: Final = {"created_at": 1}


def list_positions(
    database: Database, integrator: str, query: ListQuery, limit: int, after: ListPosition | None = None
) -> Sequence[ListPosition]:
    """Return the positions of at most ``limit`` runs of ``query`` after ``after``, the oldest first.

    Raises what the execution store raises.
    """
    with db_call(database, writes=False):
        matching = list_filter(scope_filter(integrator), query, after)
        cursor = database.collection("executions").find(matching, _PROJECTION)
        rows = list(cursor.sort([("created_at", 1), ("_id", 1)]).limit(limit).batch_size(limit))
    return [ListPosition(row["created_at"], row["_id"]) for row in rows]
