"""The part of a MongoDB filter that keeps integrators apart; a scope of None leaves it out, or names all of them."""

from __future__ import annotations

from typing import Any

from shared.domain.access.caller import Scope
from shared.store.database import Database


def scope_filter(scope: Scope) -> dict[str, Any]:
    """Return the condition for the objects of ``scope``; none for every integrator."""
    return {} if scope is None else {"integrator": str(scope)}


def indexed_scope_filter(database: Database, scope: Scope) -> dict[str, Any]:
    """Return the condition for a list of executions, whose indexes begin with the integrator.

    For None it names all integrators that there are, which mongod finds in an index by skipping from one to the next.
    It then merges their ranges of an index in the order of the list, and sorts nothing (docs/benchmarks.md).
    """
    if scope is not None:
        return scope_filter(scope)
    return {"integrator": {"$in": database.collection("executions").distinct("integrator")}}
