"""Reads the newest runs that are over, for who wants to know how long such runs take; never for a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shared.domain.execution import Execution
from shared.store.database import Database, call
from shared.store.documents import APART_FROM_DECISIONS, decode

LOOKED_AT: Final = 1_000
_WITHIN_S: Final = 3.0


def newest_ended(database: Database, integrator: str) -> Sequence[Execution]:
    """Answer those of the newest 1,000 runs that are over, the newest first; by an index, whatever is stored."""
    wanted = {"integrator": str(integrator), "status": {"$exists": True}}
    with call(database, writes=False, within_s=_WITHIN_S):
        found = list(
            database.collection("executions")
            .find(wanted, {"input": 0, "metadata": 0} | APART_FROM_DECISIONS)
            .sort([("created_at", -1), ("_id", -1)])
            .limit(LOOKED_AT)
        )
    return [decode(document) for document in found if "finished_at" in document]
