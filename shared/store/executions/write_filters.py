"""Filters of MongoDB calls, with the fencing token of a lease; large outputs: their ids and their insert.

Values that a caller can choose are strings and never operators.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from shared.domain.access.caller import Scope
from shared.domain.execution import Lease
from shared.domain.status import ExecutionStatus, StepStatus
from shared.store.database import Database, db_call
from shared.store.scope_filter import scope_filter


def execution_filter(scope: Scope, execution_id: str) -> dict[str, Any]:
    """Build the filter of one execution that is not a tombstone."""
    return {"_id": str(execution_id)} | scope_filter(scope) | {"status": {"$exists": True}}


def executions_filter(scope: Scope, ids: Iterable[str]) -> dict[str, Any]:
    """Build the filter of several executions that are no tombstones."""
    return {"_id": {"$in": [str(each) for each in ids]}} | scope_filter(scope) | {"status": {"$exists": True}}


def overdue_filter(now: datetime, implausible_after: datetime | None) -> dict[str, Any]:
    """Match executions that were due before ``now``, and those whose due time a clock ahead may have set.

    These are due only after ``implausible_after``, and are no schedules; without it they are not searched for.
    """
    overdue: dict[str, Any] = {"due_by": {"$lt": now}}
    if implausible_after is None:
        return overdue
    implausible = {"due_by": {"$gt": implausible_after}, "status": {"$ne": str(ExecutionStatus.SCHEDULED)}}
    return {"$or": [overdue, implausible]}


def lease_filter(lease: Lease) -> dict[str, Any]:
    """Build the filter of an execution whose step still runs under ``lease``: fencing token and claim number."""
    step = f"steps.{lease.step}"
    return {
        f"{step}.status": str(StepStatus.RUNNING),
        f"{step}.claims": lease.claim,
        f"{step}.token": lease.token,
    }


def external_output_id(execution_id: str, step: str, token: str | None) -> str:
    """Return the id of a large output in the collection ``outputs``; it names the claim that made it."""
    return f"{execution_id}:{step}:{token or ''}"


def insert_external_output(
    database: Database, integrator: str, execution_id: str, output_id: str, output: bytes, *, now: datetime
) -> None:
    """Store a large output under the id of the claim that made it; an existing one of that id is the same."""
    names = {"_id": output_id, "integrator": integrator, "execution_id": execution_id}
    with suppress(DuplicateKeyError), db_call(database):
        database.collection("outputs").insert_one(names | {"created_at": now, "json": output})
