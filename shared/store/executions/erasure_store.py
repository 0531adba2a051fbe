"""Erasure in MongoDB: one optimistic write empties the run, then its large outputs, tracebacks and memories go.

The write comes first and is the promise: from then on no reader finds content in the run. What lies beside it is
deleted after it, by each call again, so that a call which repeats a broken one completes it. The sweep for orphaned
outputs would find those too, for nothing refers to them any more.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from pymongo import ReturnDocument

from shared.domain.execution import Execution, ExecutionRecord
from shared.errors import StaleWrite
from shared.store.database import Database, db_call
from shared.store.executions.documents import READER_PROJECTION, decode_record, diff_update
from shared.store.executions.write_filters import execution_filter

_BESIDE_THE_RUN: Final = ("outputs", "failures")

_Document = dict[str, Any]


class MongoErasureStore:
    """Erases the content of finished runs; raises what the execution store raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def empty(self, before: Execution, erased: Execution) -> ExecutionRecord:
        """Write ``erased`` in place of ``before``, without log lines and outputs; raise StaleWrite if it has changed.

        The numbers of the log lines are kept: a reader who has some of them sees that they are gone.
        """
        update = diff_update(before, erased)
        update.setdefault("$set", {}).update({"basket": orjson.dumps(erased.basket), "events": []})
        to_unset = {name for name in update.get("$unset", {}) if not name.startswith("checkpoints.")}
        update["$unset"] = dict.fromkeys((*sorted(to_unset), "outputs", "checkpoints", "sealed"), "")
        update |= {"$inc": {"version": 1, "rev": 1}, "$currentDate": {"updated_at": True}}
        query = execution_filter(before.integrator, before.id) | {"version": before.version}
        with db_call(self._database):
            document = self._database.collection("executions").find_one_and_update(
                query, update, READER_PROJECTION, return_document=ReturnDocument.AFTER
            )
        if document is None:
            raise StaleWrite(f"{before.id} is no longer at version {before.version}")
        return decode_record(document)

    def delete_late(self, execution: Execution) -> None:
        """Delete what was stored beside a run, if it was erased meanwhile: for who has just stored something there.

        An erasure that this does not see yet deletes it itself.
        """
        query = execution_filter(execution.integrator, execution.id) | {"erased_at": {"$type": "date"}}
        with db_call(self._database, writes=False):
            is_erased = self._database.collection("executions").find_one(query, {"_id": 1}) is not None
        if is_erased:
            self.delete_beside(execution)

    def delete_beside(self, execution: Execution) -> None:
        """Delete what is stored beside a run: its large outputs and checkpoints, its tracebacks, its agents' memories.

        A memory is known by the moment at which the step ended; one that a later run has replaced is not of this run.
        """
        of_run = {"execution_id": execution.id, "integrator": execution.integrator}
        with db_call(self._database):
            for name in _BESIDE_THE_RUN:
                self._database.collection(name).delete_many(of_run)
        finished = {step.finished_at for step in execution.steps.values() if step.finished_at is not None}
        agents = "|".join(sorted(map(re.escape, set(execution.basket.agents))))
        prefix = rf"^{re.escape(execution.integrator)}:[a-z]+:{re.escape(execution.basket.name)}:({agents})$"
        memories = {"_id": {"$regex": prefix}, "at": {"$in": sorted(finished)}}
        with db_call(self._database):
            self._database.collection("agent_memory").delete_many(memories)
