"""Bulk reads and writes of executions in MongoDB, with which a worker saves round trips while it has a backlog.

One round trip costs the driver and mongod as much as the work for several documents. Nothing else differs from single
writes: each document gets a plain filtered update, to a majority and journalled unless all are claims.
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
    """Several executions at once in MongoDB; the port documents what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load_all(self, integrator: str, execution_ids: Sequence[str]) -> Sequence[ExecutionRecord]:
        """Return executions as this primary has them now; one that cannot be decoded is logged and left out."""
        executions = self._executions.with_options(read_concern=ReadConcern("local"))
        query = {
            "_id": {"$in": [str(name) for name in execution_ids]},
            "integrator": str(integrator),
            "status": {"$exists": True},
        }
        with db_call(self._database, writes=False):
            documents = list(executions.find(query, READER_PROJECTION))
        return [record for document in documents if (record := _to_record_or_none(document)) is not None]

    def save_all(self, saves: Sequence[BulkSave]) -> bool:
        """Write decisions by one unordered bulk write, each filtered by version, lease and rev."""
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
    # The rev too: a view rendered from the earlier record could otherwise have the rev of another change.
    query = decision_filter(before, save.decision, save.lease) | {"rev": before.rev}
    return UpdateOne(query, decision_update(before, save.decision))


def _to_record_or_none(document: _Document) -> ExecutionRecord | None:
    try:
        events = tuple(decode_event(element) for element in document.get("events", ()))
        return ExecutionRecord(
            decode_execution(document), events, document.get("lines", 0), document.get("outputs", {})
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        structlog.get_logger().exception("an execution cannot be read", execution_id=str(document.get("_id")))
        return None
