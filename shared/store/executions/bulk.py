"""Bulk reads and writes of executions in MongoDB, with which a worker saves round trips while it has a backlog.

One round trip costs the driver and mongod as much as the work for several documents. Nothing else differs from single
writes: each document gets a plain filtered update, to a majority and journalled unless all are claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from shared.domain.execution import ExecutionRecord, Lease
from shared.domain.lifecycle.decision import Decision
from shared.store.database import Database, db_call
from shared.store.executions.documents import READER_PROJECTION, decode_record
from shared.store.executions.payload_seal import NO_PAYLOAD_SEAL, PayloadSeal
from shared.store.executions.updates import decision_filter, decision_update
from shared.store.executions.write_filters import executions_filter
from shared.store.readable_documents import decode_readable

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BulkSave:
    """A decision on a complete record, to be written together with others; none of its outputs is stored externally."""

    before: ExecutionRecord
    decision: Decision
    lease: Lease | None = None


class MongoBulkExecutionStore:
    """Several executions at once in MongoDB; raises what the execution store raises."""

    def __init__(self, database: Database, seal: PayloadSeal = NO_PAYLOAD_SEAL) -> None:
        self._database = database
        self._seal = seal

    def load_all(self, integrator: str, execution_ids: Sequence[str]) -> Sequence[ExecutionRecord]:
        """Return executions as this primary has them now; one that cannot be decoded is logged and left out."""
        executions = self._executions.with_options(read_concern=ReadConcern("local"))
        with db_call(self._database, writes=False):
            documents = list(executions.find(executions_filter(integrator, execution_ids), READER_PROJECTION))
        return list(decode_readable(documents, self._to_record))

    def save_all(self, saves: Sequence[BulkSave]) -> bool:
        """Write decisions on different executions, each as ``save`` does and only if its ``rev`` is unchanged.

        So ``decision.apply_to(before)`` is the record of each after it. Return False if not all were written. The
        caller then writes each alone, and also if the reply was lost; the filter makes that harmless.
        """
        updates = [self._update_of(save) for save in saves]
        executions = self._executions
        if all(save.decision.is_lock_only for save in saves):
            executions = executions.with_options(write_concern=WriteConcern(w=1))
        with db_call(self._database):
            if len(updates) == 1:  # the usual case without a backlog; a bulk write takes a fifth more of the driver
                return executions.update_one(*updates[0]).matched_count == 1
            writes = [UpdateOne(*update) for update in updates]
            return executions.bulk_write(writes, ordered=False).matched_count == len(writes)

    @property
    def _executions(self) -> Collection[_Document]:
        return self._database.collection("executions")

    def _to_record(self, document: _Document) -> ExecutionRecord:
        return decode_record(self._seal.open_document(document, strict=False))

    def _update_of(self, save: BulkSave) -> tuple[_Document, _Document]:
        """Return the filter and the update of a save."""
        before = save.before.execution
        # The rev too: a view rendered from the earlier record could otherwise have the rev of another change.
        query = decision_filter(before, save.decision, save.lease) | {"rev": before.rev}
        return query, self._seal.seal_update(before.id, decision_update(before, save.decision))
