"""Queries on many executions in MongoDB: keyset pages of lists, comparison of revisions, batch reads and inserts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pymongo.errors import BulkWriteError

from shared.domain.access.caller import Scope
from shared.domain.execution import Execution, ExecutionRecord
from shared.domain.lifecycle.decision import Decision
from shared.domain.list_query import ListPosition, ListQuery, ListRow
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError, NotStorable, OutcomeUnknown, SealBroken, Unavailable
from shared.store.database import Database, db_call, full_batch_size
from shared.store.executions.documents import (
    DECISION_PROJECTION,
    LIST_PROJECTION,
    READER_PROJECTION,
    ROW_PROJECTION,
    check_can_be_shown,
    decode_execution,
    decode_record,
    decode_row,
    new_document,
)
from shared.store.executions.payload_seal import NO_PAYLOAD_SEAL, PayloadSeal
from shared.store.executions.store import IDEMPOTENCY_KEY_TTL, MongoExecutionStore
from shared.store.executions.write_filters import execution_filter, executions_filter
from shared.store.list_filter import SORT_BY_ORDER, list_filter
from shared.store.readable_documents import decode_readable, read_whole_page, time_of
from shared.store.scope_filter import indexed_scope_filter, scope_filter
from shared.store.server_clock import Clock

_CURSOR_BATCH_SIZE: Final = 20
_LOGS_BATCH_SIZE: Final = 50
_INSERT_EXTRA_S: Final = 0.001
_FINAL: Final = {str(status) for status in ExecutionStatus if status.is_final}

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RevisionComparison:
    """Executions compared with the revisions that a caller has; unchanged ones are only counted.

    ``live`` are the first unchanged executions that are not done, in the order of the request, ``live_max`` at most.
    ``missing`` are also those that have changed into something that cannot be read.
    """

    changed: Sequence[Execution]
    live: Sequence[Execution]
    unchanged: int
    missing: Sequence[str]


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Complete executions, and the ids of those that were to be among them and cannot be read."""

    records: Sequence[ExecutionRecord]
    unreadable: Sequence[str]


class MongoExecutionQueries:
    """Queries of lists and batches, each one round trip; ``store`` makes the inserts that a batch cannot decide."""

    def __init__(
        self, database: Database, clock: Clock, store: MongoExecutionStore, seal: PayloadSeal = NO_PAYLOAD_SEAL
    ) -> None:
        self._database = database
        self._clock = clock
        self._store = store
        self._seal = seal

    def list_page(
        self,
        scope: Scope,
        query: ListQuery,
        limit: int,
        after: ListPosition | None = None,
        *,
        with_metadata: bool = False,
    ) -> Sequence[ListRow]:
        """Return at most ``limit`` executions of ``query`` after the position ``after``, in the order of the query.

        Here and in :meth:`compare_revisions` they have no ``input``, and ``metadata`` only if it is asked for. mongod
        chooses the index that serves the filters best, by trying. One that cannot be read is logged and left out, and
        the page is as long as without it.
        """
        field, direction = SORT_BY_ORDER[query.order]
        projection = ROW_PROJECTION if with_metadata else LIST_PROJECTION

        def to_row(row: _Document) -> ListRow:
            return ListRow(decode_row(row), ListPosition(time_of(row, field), row["_id"]))

        with db_call(self._database, writes=False):
            matching = list_filter(indexed_scope_filter(self._database, scope), query, after)
            found = self._database.collection("executions").find(matching, projection)
            return read_whole_page(found.sort([(field, direction), ("_id", direction)]), to_row, limit)

    def compare_revisions(
        self, scope: Scope, revs: Mapping[str, int | None], live_max: int, *, causal: bool = False
    ) -> RevisionComparison:
        """Compare ``revs`` (revision by id) with the store: which executions differ, and which do not exist.

        Only the returned executions are decoded, because decoding is slow. ``causal`` waits until a majority has what
        the primary has.
        """
        query = executions_filter(scope, revs)
        with db_call(self._database, writes=False), self._database.read_session(query, causal=causal) as session:
            cursor = self._database.collection("executions").find(query, LIST_PROJECTION, session=session)
            by_id = {row["_id"]: row for row in cursor.batch_size(full_batch_size(revs))}
        rows = [by_id[each] for each in revs if each in by_id]
        changed_ids = {row["_id"] for row in rows if row.get("rev") != revs[row["_id"]]}
        changed = list(decode_readable((row for row in rows if row["_id"] in changed_ids), decode_row))
        unchanged = [row for row in rows if row["_id"] not in changed_ids]
        live_rows = (row for row in unchanged if str(row["status"]) not in _FINAL)
        live = islice(decode_readable(live_rows, decode_row), live_max)
        unreadable_ids = changed_ids - {run.id for run in changed}
        missing = [each for each in revs if each not in by_id or each in unreadable_ids]
        return RevisionComparison(changed, list(live), len(unchanged), missing)

    def read_rows(self, scope: Scope, min_revs: Mapping[str, int]) -> Mapping[str, Execution]:
        """Return executions by id, without ``input`` and outputs, none of an older revision than ``min_revs`` has.

        What is missing or older is read again in a causal session: a primary that was just elected serves older
        majority data for a moment. What is still missing was deleted, or cannot be read.
        """
        rows = self._read_rows(scope, min_revs)
        lagging = [each for each, rev in min_revs.items() if each not in rows or rows[each].rev < rev]
        if lagging:
            rows |= self._read_rows(scope, lagging, causal=True)
        return rows

    def _read_rows(self, scope: Scope, ids: Collection[str], *, causal: bool = False) -> dict[str, Execution]:
        query = executions_filter(scope, ids)
        with db_call(self._database, writes=False), self._database.read_session(query, causal=causal) as session:
            cursor = self._database.collection("executions").find(query, ROW_PROJECTION, session=session)
            rows = list(cursor.batch_size(full_batch_size(ids)))
        return {each.id: each for each in decode_readable(rows, decode_row)}

    def read_many(self, scope: Scope, ids: Collection[str], bytes_max: int) -> RecordBatch:
        """Return the complete executions of ``ids``, without large outputs; stop once ``bytes_max`` have been read.

        At least one is returned if any exists; the caller can request the rest again. They are read a few at a time, so
        that memory holds no more.
        """
        records: list[ExecutionRecord] = []
        read_ids: list[str] = []
        with db_call(self._database, writes=False):
            cursor = self._database.collection("executions").find(executions_filter(scope, ids), READER_PROJECTION)
            with cursor.batch_size(_CURSOR_BATCH_SIZE):
                for document in cursor:
                    read_ids.append(document["_id"])
                    for record in decode_readable([document], self._open_record):
                        records.append(record)
                        bytes_max -= sum(map(len, record.outputs.values()))
                    if bytes_max <= 0:
                        break
        readable = {record.execution.id for record in records}
        return RecordBatch(records, [each for each in read_ids if each not in readable])

    def _open_record(self, document: _Document) -> ExecutionRecord:
        try:
            record = decode_record(self._seal.open_document(document))
        except SealBroken as broken:
            raise ValueError(str(broken)) from broken
        check_can_be_shown(record.execution)
        return record

    def read_newest(self, scope: Scope, limit: int, lines_max: int) -> Sequence[ExecutionRecord]:
        """Return the newest executions of ``scope`` with their log lines, without outputs.

        They are read a few at a time, until ``lines_max`` lines have been read.
        """
        executions = self._database.collection("executions")
        projection = {"outputs": 0, "input": 0} | READER_PROJECTION
        records: list[ExecutionRecord] = []
        with db_call(self._database, writes=False):
            # An id begins with the second of its creation; of one integrator, the index of the list has the order.
            order = [("_id", -1)] if scope is None else [("created_at", -1), ("_id", -1)]
            cursor = executions.find(scope_filter(scope) | {"status": {"$exists": True}}, projection).sort(order)
            with cursor.limit(limit).batch_size(_LOGS_BATCH_SIZE):
                for record in decode_readable(
                    cursor, lambda document: decode_record(self._seal.open_document(document, strict=False))
                ):
                    records.append(record)
                    lines_max -= len(record.events)
                    if lines_max <= 0:
                        break
        return records

    def find_integrator(self, execution_id: str) -> str | None:
        """Return the integrator of an execution, as a majority has it; None if there is no such execution."""
        with db_call(self._database, writes=False):
            document = self._database.collection("executions").find_one(
                execution_filter(None, execution_id), {"integrator": 1}
            )
        return None if document is None else str(document["integrator"])

    def find_by_idempotency_keys(self, integrator: str, keys: Collection[str]) -> Mapping[str, Execution]:
        """Return the runs that hold idempotency keys, by key, found by the unique index."""
        query = {"integrator": str(integrator), "idempotency.key": {"$in": [str(key) for key in keys]}}
        with db_call(self._database, writes=False):
            cursor = self._database.collection("executions").find(query, DECISION_PROJECTION)
            documents = list(cursor.batch_size(full_batch_size(keys)))
        in_force_since = self._clock.now() - IDEMPOTENCY_KEY_TTL
        runs = [run for run in map(decode_execution, documents) if run.created_at > in_force_since]
        return {run.idempotency.key: run for run in runs if run.idempotency is not None}

    def insert_all(self, decisions: Sequence[Decision]) -> Collection[int]:
        """Store runs by one unordered insert; return the indexes of those refused, mostly as a key or id is taken.

        Nothing was stored of those. Raises what ``create`` raises if that may apply to all of them.
        """
        documents = [self._seal.seal_document(new_document(decision, {})) for decision in decisions]
        with db_call(self._database, timeout_s=self._database.deadline_s + len(documents) * _INSERT_EXTRA_S):
            try:
                self._database.collection("executions").insert_many(documents, ordered=False)
            except BulkWriteError as failed:
                if failed.details.get("writeConcernErrors"):
                    raise
                return {error["index"] for error in failed.details["writeErrors"]}
        return ()

    def create_many(self, decisions: Sequence[Decision]) -> Sequence[Execution | BucketError]:
        """Store runs by one unordered insert; return, for each, what ``create`` would return or raise."""
        if not decisions:
            return []
        try:
            refused = self.insert_all(decisions)
        except (Unavailable, OutcomeUnknown, NotStorable) as error:
            return [error] * len(decisions)
        outcomes = self._resolve_refused([decisions[index] for index in sorted(refused)]) if refused else {}
        return [outcomes.get(decision.execution.id, decision.execution) for decision in decisions]

    def _resolve_refused(self, refused: Sequence[Decision]) -> Mapping[str, Execution | BucketError]:
        """Return, by id, the outcome of runs whose inserts were refused, as when one batch is sent twice at once.

        The holders of their keys are read in one round trip. The rest is decided one by one, until the store does not
        reply: hundreds would otherwise wait for it one after the other.
        """
        keys = {
            decision.execution.idempotency.key for decision in refused if decision.execution.idempotency is not None
        }
        outcomes: dict[str, Execution | BucketError] = {}
        away: BucketError | None = None
        try:
            holders = self.find_by_idempotency_keys(refused[0].execution.integrator, keys)
        except BucketError as error:
            holders, away = {}, error
        for decision in refused:
            run = decision.execution
            holder = None if run.idempotency is None else holders.get(run.idempotency.key)
            try:
                if holder is not None:
                    outcomes[run.id] = holder
                elif away is not None:
                    outcomes[run.id] = away
                else:
                    outcomes[run.id] = self._store.create(decision)
            except (Unavailable, OutcomeUnknown) as error:
                outcomes[run.id] = error
                away = Unavailable()  # nothing was stored of the runs after this one
            except BucketError as error:
                outcomes[run.id] = error
        return outcomes
