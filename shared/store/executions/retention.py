"""Takes away what nobody will ask for again: runs past their retention, and large outputs that nothing names.

It spans all integrators. What it deletes is final for good, so it needs no version and harms nothing when it is run
twice, or by two at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from shared.domain.status import ExecutionStatus
from shared.ids import id_upper_bound
from shared.store.database import Database, db_call
from shared.store.executions.documents import decode_execution
from shared.store.executions.filters import external_output_id

SWEEP_BATCH_SIZE: Final = 500
ORPHAN_MIN_AGE: Final = timedelta(days=1)
_FINAL: Final = [str(status) for status in ExecutionStatus if status.is_final]

_Document = dict[str, Any]


class RetentionSweep:
    """Both sweeps; each verb takes at most :data:`AT_ONCE` and answers what it took away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def delete_expired(self, now: datetime, days: int) -> Sequence[str]:
        """Delete final runs made over ``days`` ago, their outputs first, so that none is left without a run."""
        made_before = now - timedelta(days=days)
        old = {
            "_id": {"$lt": id_upper_bound(made_before)},
            "status": {"$in": _FINAL},
            "created_at": {"$lt": made_before},
        }
        executions = self._database.collection("executions")
        with db_call(self._database):
            found = [each["_id"] for each in executions.find(old, {"_id": 1}).sort("_id", 1).limit(SWEEP_BATCH_SIZE)]
            if found:
                self._database.collection("outputs").delete_many({"execution_id": {"$in": found}})
                executions.delete_many(old | {"_id": {"$in": found}})
        return found

    def delete_orphaned_outputs(self, now: datetime, after: str = "") -> tuple[int, str]:
        """Look at large outputs made over a day ago, by their names from ``after`` on; delete those nothing names.

        A claim that lost its lease leaves one behind, and so does a crash before the write that was to name it. One
        whose run goes on may yet be named. Answers the next ``after`` too, which is empty at the end.
        """
        outputs = self._database.collection("outputs")
        made_before = now - ORPHAN_MIN_AGE
        # By the run's second first, or each look would read all of the last day's outputs to find that they are young.
        old = {"_id": {"$gt": after, "$lt": id_upper_bound(made_before)}, "created_at": {"$lt": made_before}}
        with db_call(self._database):
            found = list(outputs.find(old, {"execution_id": 1}).sort("_id", 1).limit(SWEEP_BATCH_SIZE))
        if not found:
            return 0, ""
        kept = self._referenced_outputs({each["execution_id"] for each in found})
        unnamed = [each["_id"] for each in found if _is_orphaned(each, kept)]
        if unnamed:
            with db_call(self._database):
                outputs.delete_many({"_id": {"$in": unnamed}})
        return len(unnamed), found[-1]["_id"]

    def _referenced_outputs(self, execution_ids: set[str]) -> dict[str, set[str] | None]:
        """For each run that is there, the names it bears; None for one that goes on."""
        wanted = {"_id": {"$in": sorted(execution_ids)}, "status": {"$exists": True}}
        with db_call(self._database):
            documents = list(self._database.collection("executions").find(wanted, {"events": 0, "outputs": 0}))
        named: dict[str, set[str] | None] = {}
        for execution in map(decode_execution, documents):
            steps = execution.steps.values()
            apart = {external_output_id(execution.id, step.id, step.token or "") for step in steps if step.output_apart}
            named[execution.id] = apart if execution.is_done else None
        return named


def _is_orphaned(output: _Document, named: dict[str, set[str] | None]) -> bool:
    kept = named.get(output["execution_id"], set())
    return kept is not None and output["_id"] not in kept
