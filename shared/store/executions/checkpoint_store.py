"""Checkpoints in MongoDB: how far a step has come, for the next claim of the same step.

A small one is stored in the execution, under its step; a large one in ``outputs``, inserted before the write that
names it. Each is written to a majority and filtered by the lease. None changes ``version`` or ``rev``, because no
caller sees it. The write that completes a step removes its checkpoint; that of a step that failed or was cancelled is
kept as long as its execution, for a retry of the run.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pymongo import ReturnDocument

from shared.domain.execution import Execution, Lease
from shared.sealing import key_id_of
from shared.store.database import Database, db_call
from shared.store.executions.write_filters import (
    execution_filter,
    external_output_id,
    insert_external_output,
    lease_filter,
)
from shared.store.server_clock import Clock

INLINE_MAX_BYTES: Final = 64 * 1024
ALL_INLINE_MAX_BYTES: Final = 1024 * 1024


def is_stored_externally(execution: Execution, state: bytes) -> bool:
    """Return whether a checkpoint is too large for its execution, which must hold those of all its steps."""
    return len(state) > min(INLINE_MAX_BYTES, ALL_INLINE_MAX_BYTES // max(len(execution.steps), 1))


class MongoCheckpointStore:
    """The newest checkpoint of each step, in MongoDB; raises what the execution store raises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def save(self, lease: Lease, number: int, state: bytes, *, is_external: bool) -> bool:
        """Write the ``number``-th checkpoint of a claim; return False if the step has moved on.

        An earlier write of the same claim that arrives late is refused by its number.
        """
        output_id = f"{external_output_id(lease.execution_id, lease.step, lease.token)}:{number}"
        entry: dict[str, Any] = {"token": lease.token, "number": number}
        if is_external:
            now = self._clock.now()
            insert_external_output(self._database, lease.integrator, lease.execution_id, output_id, state, now=now)
            entry["apart"] = output_id
        else:
            entry["json"] = state
        path = f"checkpoints.{lease.step}"
        newer = [{f"{path}.token": {"$ne": lease.token}}, {f"{path}.number": {"$lte": number}}]
        query = execution_filter(lease.integrator, lease.execution_id) | lease_filter(lease) | {"$or": newer}
        update: dict[str, Any] = {"$set": {path: entry}}
        if (key_id := key_id_of(state)) is not None:
            update["$addToSet"] = {"sealed": key_id}
        with db_call(self._database):
            before = self._database.collection("executions").find_one_and_update(
                query, update, {path: 1}, return_document=ReturnDocument.BEFORE
            )
        if before is None:
            if is_external:
                self._remove(output_id)
            return False
        replaced = before.get("checkpoints", {}).get(lease.step, {}).get("apart")
        if replaced and replaced != output_id:
            self._remove(replaced)
        return True

    def load_newest(self, lease: Lease) -> bytes | None:
        """Return the newest checkpoint of the step, of any claim (read concern majority); None if there is none.

        In a retry that reuses completed steps, a step without one has that of the run that is retried.
        """
        entry = self._find_newest(lease)
        if entry is None:
            return None
        if "json" in entry:
            return bytes(entry["json"])
        query = {"_id": entry["apart"], "integrator": lease.integrator}
        with db_call(self._database, writes=False):
            output = self._database.collection("outputs").find_one(query)
        return None if output is None else bytes(output["json"])

    def _find_newest(self, lease: Lease) -> dict[str, Any] | None:
        fields = {f"checkpoints.{lease.step}": 1, "retry_of": 1, "effects_of": 1}
        execution_id: str | None = lease.execution_id
        while execution_id is not None:
            query = execution_filter(lease.integrator, execution_id)
            with db_call(self._database, writes=False):
                document = self._database.collection("executions").find_one(query, fields) or {}
            entry: dict[str, Any] | None = document.get("checkpoints", {}).get(lease.step)
            if entry is not None:
                return entry
            # A retry from the start has effects of its own, and begins anew.
            execution_id = document.get("retry_of") if document.get("effects_of") else None
        return None

    def delete_external(self, integrator: str, execution_id: str, step: str) -> None:
        """Delete the large checkpoints of a step that has completed, found by ids that no output has."""
        id_pattern = {"$regex": f"^{re.escape(external_output_id(execution_id, step, ''))}[^:]+:[0-9]+$"}
        with db_call(self._database):
            self._database.collection("outputs").delete_many(
                {"execution_id": str(execution_id), "integrator": str(integrator), "_id": id_pattern}
            )

    def _remove(self, output_id: str) -> None:
        with db_call(self._database):
            self._database.collection("outputs").delete_one({"_id": output_id})
