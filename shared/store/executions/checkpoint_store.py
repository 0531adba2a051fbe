"""Checkpoints: how far a step has come inside itself, for whichever claim of it comes next.

A small one lies in the execution, under its step; a large one in ``outputs``, inserted before the write that names it.
Each is stored by a majority and filtered by the lease; none moves ``version`` or ``rev``, for nobody sees it. The write
that ends a step takes its checkpoint away.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from shared.domain.execution import Execution, Lease
from shared.store.database import Database, db_call
from shared.store.executions.filters import execution_filter, external_output_id, lease_filter
from shared.store.server_clock import Clock

INLINE_MAX_BYTES: Final = 64 * 1024
ALL_INLINE_MAX_BYTES: Final = 1024 * 1024


def is_stored_externally(execution: Execution, state: bytes) -> bool:
    """True for a checkpoint too large to lie in its execution, where those of all its steps must find room."""
    return len(state) > min(INLINE_MAX_BYTES, ALL_INLINE_MAX_BYTES // max(len(execution.steps), 1))


class MongoCheckpointStore:
    """The newest checkpoint of each step, in MongoDB; raises what the execution's store raises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def keep(self, lease: Lease, number: int, state: bytes, *, apart: bool) -> bool:
        """Write the ``number``-th checkpoint of a claim; return False if the step has moved on.

        An earlier write of the same claim that arrives late is refused by its number.
        """
        name = f"{external_output_id(lease.execution_id, lease.step, lease.token)}:{number}"
        entry: dict[str, Any] = {"token": lease.token, "number": number}
        if apart:
            self._insert(lease, name, state)
            entry["apart"] = name
        else:
            entry["json"] = state
        place = f"checkpoints.{lease.step}"
        newer = [{f"{place}.token": {"$ne": lease.token}}, {f"{place}.number": {"$lte": number}}]
        held = execution_filter(lease.integrator, lease.execution_id) | lease_filter(lease) | {"$or": newer}
        with db_call(self._database):
            before = self._database.collection("executions").find_one_and_update(
                held, {"$set": {place: entry}}, {place: 1}, return_document=ReturnDocument.BEFORE
            )
        if before is None:
            if apart:
                self._remove(name)
            return False
        replaced = before.get("checkpoints", {}).get(lease.step, {}).get("apart")
        if replaced and replaced != name:
            self._remove(replaced)
        return True

    def newest(self, lease: Lease) -> bytes | None:
        """Return the newest checkpoint of the step, of any claim, as a majority has it; None if there is none."""
        named = execution_filter(lease.integrator, lease.execution_id)
        with db_call(self._database, writes=False):
            found = self._database.collection("executions").find_one(named, {f"checkpoints.{lease.step}": 1})
        entry = (found or {}).get("checkpoints", {}).get(lease.step)
        if entry is None:
            return None
        if "json" in entry:
            return bytes(entry["json"])
        with db_call(self._database, writes=False):
            kept = self._database.collection("outputs").find_one(
                {"_id": entry["apart"], "integrator": lease.integrator}
            )
        return bytes(kept["json"]) if kept is not None else None

    def clear(self, integrator: str, execution_id: str, step: str) -> None:
        """Delete the large checkpoints of a step that is over, found by names that no output has."""
        named = {"$regex": f"^{re.escape(external_output_id(execution_id, step, ''))}[^:]+:[0-9]+$"}
        with db_call(self._database):
            self._database.collection("outputs").delete_many(
                {"execution_id": str(execution_id), "integrator": str(integrator), "_id": named}
            )

    def _remove(self, name: str) -> None:
        with db_call(self._database):
            self._database.collection("outputs").delete_one({"_id": name})

    def _insert(self, lease: Lease, name: str, state: bytes) -> None:
        document = {
            "_id": name,
            "integrator": lease.integrator,
            "execution_id": lease.execution_id,
            "created_at": self._clock.now(),
            "json": state,
        }
        try:
            with db_call(self._database):
                self._database.collection("outputs").insert_one(document)
        except DuplicateKeyError:
            return
