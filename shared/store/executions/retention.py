"""Retention: deletes runs that are older than the retention period, and large outputs that no run refers to.

It works over all integrators. It deletes only final runs, so it needs no version and does no harm if it runs twice, or
in two processes at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from shared.domain.status import ExecutionStatus
from shared.ids import id_upper_bound
from shared.store.database import Database, db_call
from shared.store.executions.documents import DECISION_PROJECTION, decode_execution
from shared.store.executions.write_filters import external_output_id
from shared.store.readable_documents import decode_readable

SWEEP_BATCH_SIZE: Final = 500
ORPHAN_MIN_AGE: Final = timedelta(days=1)
_FINAL: Final = [str(status) for status in ExecutionStatus if status.is_final]

_Document = dict[str, Any]


class RetentionSweep:
    """Both sweeps; each method handles at most :data:`SWEEP_BATCH_SIZE` documents and returns what it deleted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def delete_expired(self, now: datetime, days: int) -> Sequence[tuple[str, str]]:
        """Delete final runs created over ``days`` ago; outputs and tracebacks first, so that none is left alone.

        Return the integrator and the id of each.
        """
        created_before = now - timedelta(days=days)
        query = {
            "_id": {"$lt": id_upper_bound(created_before)},
            "status": {"$in": _FINAL},
            "created_at": {"$lt": created_before},
            "audit": {"$exists": False},  # its event is not in the audit log yet
        }
        executions = self._database.collection("executions")
        with db_call(self._database):
            found = executions.find(query, {"integrator": 1}).sort("_id", 1).limit(SWEEP_BATCH_SIZE)
            integrators = {each["_id"]: each["integrator"] for each in found}
            ids = list(integrators)
            if ids:
                for parts in ("outputs", "failures"):
                    self._database.collection(parts).delete_many({"execution_id": {"$in": ids}})
                executions.delete_many(query | {"_id": {"$in": ids}})
        return [(integrator, run_id) for run_id, integrator in integrators.items()]

    def delete_orphaned_outputs(self, now: datetime, after: str = "") -> tuple[int, str]:
        """Check large outputs created over a day ago, in the order of their ids after ``after``; delete the orphans.

        A claim that lost its lease leaves an orphan, and so does a crash before the write that refers to the output.
        An output of a run that is not done may still get its reference. Return the number of deleted outputs and the
        next ``after``, which is empty at the end.
        """
        outputs = self._database.collection("outputs")
        created_before = now - ORPHAN_MIN_AGE
        # The bound on the id (the run's second) keeps the query from reading all outputs of the last day.
        query = {"_id": {"$gt": after, "$lt": id_upper_bound(created_before)}, "created_at": {"$lt": created_before}}
        with db_call(self._database, writes=False):
            rows = list(outputs.find(query, {"execution_id": 1}).sort("_id", 1).limit(SWEEP_BATCH_SIZE))
        if not rows:
            return 0, ""
        referenced = self._referenced_outputs({each["execution_id"] for each in rows})
        orphans = [each["_id"] for each in rows if _is_orphaned(each, referenced)]
        if orphans:
            with db_call(self._database):
                outputs.delete_many({"_id": {"$in": orphans}})
        return len(orphans), rows[-1]["_id"]

    def _referenced_outputs(self, execution_ids: set[str]) -> dict[str, set[str] | None]:
        """Return the ids of outputs that each existing run refers to; None for one that is not done or not readable."""
        query = {"_id": {"$in": sorted(execution_ids)}, "status": {"$exists": True}}
        with db_call(self._database, writes=False):
            documents = list(self._database.collection("executions").find(query, DECISION_PROJECTION))
        # A run that cannot be read keeps its outputs, and keeps no other run's orphans back.
        referenced: dict[str, set[str] | None] = {document["_id"]: None for document in documents}
        for execution in decode_readable(documents, decode_execution):
            steps = execution.steps.values()
            output_ids = {external_output_id(execution.id, step.id, step.token) for step in steps if step.output_apart}
            referenced[execution.id] = output_ids if execution.is_done else None
        for execution_id, output_ids in self._kept_checkpoints(execution_ids):
            if (others := referenced.get(execution_id)) is not None:
                others |= output_ids
        return referenced

    def _kept_checkpoints(self, execution_ids: set[str]) -> Iterator[tuple[str, set[str]]]:
        """Yield the ids of the large checkpoints that each run refers to: those of steps that did not complete."""
        entries = {"$objectToArray": "$checkpoints"}
        stages: list[_Document] = [
            {"$match": {"_id": {"$in": sorted(execution_ids)}, "checkpoints": {"$type": "object"}}},
            {"$project": {"ids": {"$map": {"input": entries, "in": "$$this.v.apart"}}}},
        ]
        with db_call(self._database, writes=False):
            documents = list(self._database.collection("executions").aggregate(stages))
        for document in documents:
            yield document["_id"], {output_id for output_id in document["ids"] if output_id is not None}


def _is_orphaned(output: _Document, referenced: dict[str, set[str] | None]) -> bool:
    output_ids = referenced.get(output["execution_id"], set())
    return output_ids is not None and output["_id"] not in output_ids
