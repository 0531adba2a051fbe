"""Several executions in one read, and several decisions in one write: what a worker with a backlog spares.

One trip costs the driver and mongod as much as the work for several documents does. Nothing else differs from writing
each alone: a plain filtered update of each document, a majority's and journalled unless all are claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from shared.domain.execution import ExecutionRecord
from shared.store.database import Database, db_call
from shared.store.executions.documents import READER_PROJECTION, decode_event, decode_execution
from shared.store.executions.port import BulkSave
from shared.store.executions.updates import decision_filter, decision_update

_Document = dict[str, Any]


class MongoBulkExecutionStore:
    """Executions in MongoDB, several at once; see the port for what each verb promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load_all(self, integrator: str, execution_ids: Sequence[str]) -> Sequence[ExecutionRecord]:
        """Answer executions as this primary has them now; one that cannot be read is left out, and said."""
        newest = self._executions.with_options(read_concern=ReadConcern("local"))
        named = {
            "_id": {"$in": [str(name) for name in execution_ids]},
            "integrator": str(integrator),
            "status": {"$exists": True},
        }
        with db_call(self._database, writes=False):
            found = list(newest.find(named, READER_PROJECTION))
        return [record for document in found if (record := _to_record_or_none(document)) is not None]

    def save_all(self, saves: Sequence[BulkSave]) -> bool:
        """Write decisions by one unordered bulk, each filtered by version, lease and rev."""
        writes = [_update_one_of(save) for save in saves]
        executions = self._executions
        if all(save.decision.is_lock_only for save in saves):
            executions = executions.with_options(write_concern=WriteConcern(w=1))
        with db_call(self._database):
            return executions.bulk_write(writes, ordered=False).matched_count == len(writes)

    @property
    def _executions(self) -> Collection[_Document]:
        return self._database.collection("executions")


def _update_one_of(save: BulkSave) -> UpdateOne:
    before = save.before.execution
    # The rev too, or a view rendered from what was seen could bear one that another change already has.
    accepted = decision_filter(before, save.decision, save.lease) | {"rev": before.rev}
    return UpdateOne(accepted, decision_update(before, save.decision))


def _to_record_or_none(document: _Document) -> ExecutionRecord | None:
    try:
        events = tuple(decode_event(element) for element in document.get("events", ()))
        return ExecutionRecord(
            decode_execution(document), events, document.get("lines", 0), document.get("outputs", {})
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        structlog.get_logger().exception("an execution cannot be read", execution_id=str(document.get("_id")))
        return None
