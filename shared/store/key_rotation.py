"""Rotation of encryption keys: seals again, with the first key, what older keys have sealed, while the stack runs.

Each run is written at the version, revision and checkpoints that were read, or is read again: nothing newer is ever
overwritten, and no poll sees the write. What was done stays done, so an interrupted rotation is simply started again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import EncryptionKeyMissing, SealBroken
from shared.sealing import (
    Sealer,
    checkpoint_place,
    input_place,
    key_id_of,
    log_place,
    marked_place,
    output_place,
)
from shared.store.database import Database, db_call

BATCH_SIZE: Final = 20
_ATTEMPTS: Final = 5
_CHECKPOINT_ID_PARTS: Final = 4

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RotatedBatch:
    """How many runs of a batch were sealed again, the reasons why others could not be, and where the next one begins.

    ``after`` is empty at the end.
    """

    resealed: int
    failures: Mapping[str, str]
    after: str


class MongoKeyRotation:
    """Seals again, batch by batch; raises what the execution store raises."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def keys_in_use(self) -> Counter[str]:
        """Return, for each key, how many runs and memories have something that it has sealed."""
        stages: list[_Document] = [
            {"$match": {"sealed": {"$exists": True}}},
            {"$unwind": "$sealed"},
            {"$group": {"_id": "$sealed", "count": {"$sum": 1}}},
        ]
        with db_call(self._database, writes=False, timeout_s=60):
            rows = list(self._database.collection("executions").aggregate(stages))
        memories = Counter(key_id for _, key_id in self._sealed_memories())
        return Counter({row["_id"]: row["count"] for row in rows}) + memories

    def rotate_batch(self, after: str = "") -> RotatedBatch:
        """Seal the next runs again, in the order of their ids after ``after``."""
        query = {"sealed": {"$elemMatch": {"$ne": self._sealer.key_id}}, "_id": {"$gt": after}}
        executions = self._database.collection("executions")
        with db_call(self._database, writes=False, timeout_s=60):
            ids = [each["_id"] for each in executions.find(query, {"_id": 1}).sort("_id", 1).limit(BATCH_SIZE)]
        failures: dict[str, str] = {}
        for execution_id in ids:
            try:
                if not self._reseal_run(execution_id):
                    failures[execution_id] = "it was written by others each time: start the rotation again"
            except (EncryptionKeyMissing, SealBroken) as error:
                failures[execution_id] = error.message
        return RotatedBatch(len(ids) - len(failures), failures, ids[-1] if len(ids) == BATCH_SIZE else "")

    def rotate_memories(self) -> int:
        """Seal the memories of agents again; return their number. One that a run has just replaced is left."""
        count = 0
        memories = self._database.collection("agent_memory")
        for document, key_id in self._sealed_memories():
            if key_id == self._sealer.key_id:
                continue
            place = document["_id"]
            try:
                resealed = self._sealer.move(document["json"], place, place)
            except (EncryptionKeyMissing, SealBroken):
                continue  # it expires within an hour, and counts as in use until then
            with db_call(self._database):
                query = {"_id": place, "json": document["json"]}
                count += memories.update_one(query, {"$set": {"json": resealed}}).modified_count
        return count

    def _sealed_memories(self) -> Iterator[tuple[_Document, str]]:
        with db_call(self._database, writes=False, timeout_s=60):
            documents = list(self._database.collection("agent_memory").find({}, {"json": 1}))
        for document in documents:
            if (key_id := key_id_of(document["json"])) is not None:
                yield document, key_id

    def _reseal_run(self, execution_id: str) -> bool:
        """Seal all of a run again; return False if it was written by others between each read and write."""
        executions = self._database.collection("executions")
        for _ in range(_ATTEMPTS):
            with db_call(self._database, writes=False):
                document = executions.find_one({"_id": execution_id, "sealed": {"$exists": True}})
            if document is None:  # deleted or erased meanwhile
                return True
            self._reseal_external(document)
            changes = {
                path: self._sealer.move(value, place, place)
                for path, value, place in _sealed_values(document)
                if key_id_of(value) not in (None, self._sealer.key_id)
            }
            # A checkpoint changes neither version nor revision.
            checkpoints = document.get("checkpoints", {"$exists": False})
            query = {name: document[name] for name in ("_id", "version", "rev")} | {"checkpoints": checkpoints}
            with db_call(self._database):
                update = {"$set": {**changes, "sealed": [self._sealer.key_id]}}
                if executions.update_one(query, update).matched_count:
                    return True
        return False

    def _reseal_external(self, document: _Document) -> None:
        """Seal the large outputs and checkpoints of a run again; what has an id is never written anew, only deleted."""
        outputs = self._database.collection("outputs")
        with db_call(self._database, writes=False):
            ids = [each["_id"] for each in outputs.find({"execution_id": document["_id"]}, {"_id": 1})]
        for output_id in ids:
            with db_call(self._database, writes=False):
                row = outputs.find_one({"_id": output_id})
            if row is None or key_id_of(row["json"]) in (None, self._sealer.key_id):
                continue
            place = _external_place(document, output_id)
            with db_call(self._database):
                resealed = self._sealer.move(row["json"], place, place)
                outputs.update_one({"_id": output_id}, {"$set": {"json": resealed}})


def _external_place(document: _Document, output_id: str) -> str:
    """Return the place of a large output or checkpoint: the id of the latter also has its number."""
    parts = output_id.split(":")
    if len(parts) == _CHECKPOINT_ID_PARTS:
        return checkpoint_place(document.get("effects_of") or document["_id"], parts[1])
    return output_place(document["_id"], parts[1])


def _sealed_values(document: _Document) -> Iterator[tuple[str, bytes, str]]:
    """Yield the path, the value and the place of everything in a run's document that may be sealed."""
    execution_id = document["_id"]
    yield "input", document["input"], input_place(execution_id)
    for step, fields in document["steps"].items():
        if "marked" in fields:
            yield f"steps.{step}.marked", fields["marked"], marked_place(execution_id, step)
    for step, output in document.get("outputs", {}).items():
        yield f"outputs.{step}", output, output_place(execution_id, step)
    for step, entry in document.get("checkpoints", {}).items():
        if "json" in entry:
            place = checkpoint_place(document.get("effects_of") or execution_id, step)
            yield f"checkpoints.{step}.json", entry["json"], place
    for index, event in enumerate(document.get("events", ())):
        yield f"events.{index}.data", event["data"], log_place(execution_id)
