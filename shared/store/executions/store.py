"""Executions in MongoDB: plain inserts and filtered (optimistic) updates of single documents.

Write concern is majority, journalled, and read concern is majority: only what a failover cannot take back leaves the
engine. The one exception is a claim that is written alone: it is a lock and not a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import ReturnDocument, UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from shared.domain.access.caller import Scope
from shared.domain.execution import Execution, ExecutionRecord, Lease, LogPageQuery
from shared.domain.lifecycle.decision import Decision
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import AlreadyRequeued, OutcomeUnknown, StaleWrite
from shared.store.database import Database, db_call
from shared.store.executions.documents import (
    DECISION_PROJECTION,
    LIST_PROJECTION,
    READER_PROJECTION,
    decode_execution,
    decode_record,
    log_page_stages,
    new_document,
    set_or_unset,
    stored_at_of,
)
from shared.store.executions.payload_seal import NO_PAYLOAD_SEAL, PayloadSeal
from shared.store.executions.updates import (
    LeaseRenewal,
    ProgressReport,
    decision_filter,
    decision_update,
    report_update,
)
from shared.store.executions.write_filters import (
    execution_filter,
    external_output_id,
    insert_external_output,
    lease_filter,
    overdue_filter,
)
from shared.store.readable_documents import decode_readable
from shared.store.server_clock import Clock

IDEMPOTENCY_KEY_TTL: Final = timedelta(hours=24)
# The second is for a key that its holder has just lost; a holder that no majority has yet refuses every attempt.
_INSERT_ATTEMPTS: Final = 2
_STEP_DUE_TIMES: Final = {"$map": {"input": {"$objectToArray": "$steps"}, "in": "$$this.v.due_by"}}

_Document = dict[str, Any]


class MongoExecutionStore:
    """The execution store: optimistic writes, of which two at the same version never both succeed.

    All methods raise Unavailable if nothing was written, OutcomeUnknown if that cannot be known, and NotStorable for
    content that no repetition will store. Methods on one run name its integrator (tenant), or the scope of a caller.
    """

    def __init__(self, database: Database, clock: Clock, seal: PayloadSeal = NO_PAYLOAD_SEAL) -> None:
        self._database = database
        self._clock = clock
        self._seal = seal

    @property
    def _executions(self) -> Collection[_Document]:
        return self._database.collection("executions")

    def create(self, decision: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store a new run by one plain insert; return it, or the run that already holds its idempotency key.

        The unique index of idempotency keys is the reservation. ``outputs`` are those of steps that are completed from
        the start, as in a retry of a run.
        """
        execution = decision.execution
        inline_outputs = dict(outputs or {})
        for step in execution.steps.values():
            if step.output_apart and step.id in inline_outputs:
                self._insert_output(execution, step.id, inline_outputs.pop(step.id))
        document = self._seal.seal_document(new_document(decision, inline_outputs))
        for _ in range(_INSERT_ATTEMPTS):
            try:
                with db_call(self._database):
                    self._executions.insert_one(document)
            except DuplicateKeyError as duplicate:
                holder = self._resolve_key_conflict(execution, duplicate)
                if holder is not None:
                    return holder
            else:
                return execution
        raise OutcomeUnknown(f"no majority knows yet who holds the key of {execution.id}")

    def find_by_idempotency_key(self, integrator: str, key: str) -> Execution | None:
        """Return the run that holds the idempotency key ``key``, by the unique index; None if none is in force.

        A key is free again after a day.
        """
        holder = self._find_by_key(integrator, key)
        return holder if holder and self._clock.now() - holder.created_at < IDEMPOTENCY_KEY_TTL else None

    def withdraw(self, integrator: str, execution_id: str) -> bool:
        """Replace an unclaimed run by a tombstone, which also refuses a later insert; False if it runs already."""
        tombstone = {"_id": execution_id, "integrator": integrator, "withdrawn_at": self._clock.now()}
        unclaimed = {"_id": execution_id, "integrator": integrator, "started_at": None}
        # A first duplicate can come from the insert itself, which a store that wakes applies beside this write.
        for _ in range(2):
            try:
                with db_call(self._database):
                    self._executions.replace_one(unclaimed, tombstone, upsert=True)
            except DuplicateKeyError:
                continue
            return True
        return False

    def load(self, scope: Scope, execution_id: str) -> Execution | None:
        """Return an execution without log lines and outputs, as this primary has it now (read concern local), or None.

        A majority read lags behind a new claim; a decision on what a failover takes back is refused by its version.
        """
        with db_call(self._database, writes=False):
            executions = self._executions.with_options(read_concern=ReadConcern("local"))
            document = executions.find_one(execution_filter(scope, execution_id), DECISION_PROJECTION)
        return None if document is None else decode_execution(document)

    def save(self, before: Execution, decision: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Write what ``decision`` changed since ``before``; raise StaleWrite if another writer was first.

        The write is filtered by the version and by a worker's lease. One that ``is_lock_only`` waits for no majority:
        a claim is a lock and not a record. Its result has neither log lines nor outputs.
        """
        for output in decision.outputs:
            if output.is_external:
                self._insert_output(decision.execution, output.step, output.json)
        update = self._seal.seal_update(before.id, decision_update(before, decision))
        saved = self._update_one(decision_filter(before, decision, lease), update, lock_only=decision.is_lock_only)
        if saved is None:
            raise StaleWrite(f"{before.id} is no longer at version {before.version}")
        return self._to_record(saved, (), strict=False)

    def renew(self, lease: Lease, due_by: datetime) -> LeaseRenewal | None:
        """Renew a lease until ``due_by``; return None if the step has moved on.

        The execution's own ``due_by`` becomes the earliest of all its steps.
        """
        pipeline: list[_Document] = [
            {"$set": {f"steps.{lease.step}.due_by": due_by}},
            {"$set": {"due_by": {"$min": [{"$min": _STEP_DUE_TIMES}, "$deadline"]}}},
        ]
        query = execution_filter(lease.integrator, lease.execution_id) | lease_filter(lease)
        with db_call(self._database):
            document = self._executions.find_one_and_update(query, pipeline, {"rev": 1, "status": 1})
        return None if document is None else LeaseRenewal(document["rev"], ExecutionStatus(document["status"]))

    def report(self, lease: Lease, report: ProgressReport) -> ExecutionRecord | None:
        """Add log lines and progress, filtered by the lease alone; return None if the step has moved on."""
        query = execution_filter(lease.integrator, lease.execution_id) | lease_filter(lease)
        saved = self._update_one(query, self._seal.seal_update(lease.execution_id, report_update(lease.step, report)))
        return None if saved is None else self._to_record(saved, (), strict=False)

    def read(
        self,
        scope: Scope,
        execution_id: str,
        *,
        outputs: Iterable[str] | None = None,
        page: LogPageQuery | None = None,
        causal: bool = False,
    ) -> ExecutionRecord | None:
        """Return a complete execution, as a majority has it, with its log lines and the given ``outputs`` (None: all).

        With a ``page`` no other lines are fetched, so that a long log does not make a poll expensive. ``causal`` waits
        until a majority has all that an earlier ``load`` can have seen.
        """
        query = execution_filter(scope, execution_id)
        with db_call(self._database, writes=False), self._database.read_session(query, causal=causal) as session:
            if page is None:
                document = self._executions.find_one(query, READER_PROJECTION, session=session)
            else:
                stages = [{"$match": query}, *log_page_stages(page)]
                document = next(iter(self._executions.aggregate(stages, session=session)), None)
        return None if document is None else self._to_record(document, outputs, page)

    def find_overdue(
        self, now: datetime, implausible_after: datetime | None, limit: int
    ) -> Sequence[tuple[Execution, datetime]]:
        """Return executions that were due before ``now``, the longest overdue first, with the second of their storing.

        :func:`overdue_filter` tells of ``implausible_after``. Inputs and metadata are left out: it may be thousands.
        One that cannot be decoded must not keep all others from being rescued.
        """
        query = overdue_filter(now, implausible_after)
        with db_call(self._database, writes=False):
            documents = list(self._executions.find(query, LIST_PROJECTION).sort("due_by", 1).limit(limit))
        return list(decode_readable(documents, lambda found: (decode_execution(found), stored_at_of(found))))

    def postpone(self, executions: Sequence[Execution]) -> None:
        """Write the due times of the ready steps in bulk, if no decision was saved since; changes no lease."""
        writes = []
        for execution in executions:
            # Not the running steps: their leases may have been renewed since, which changes no version.
            ready = [step for step in execution.steps.values() if step.status is StepStatus.READY]
            due_times: _Document = {f"steps.{step.id}.due_by": step.due_by for step in ready}
            due_times["due_by"] = execution.due_by
            query = execution_filter(execution.integrator, execution.id) | {"version": execution.version}
            writes.append(UpdateOne(query, set_or_unset(due_times)))
        if writes:
            with db_call(self._database):
                self._executions.bulk_write(writes, ordered=False)

    def acquire_leadership(self, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew the leader lease of the reconcilers; return False while another one holds it."""
        # An end that is too far ahead was set by a clock that has since jumped back.
        implausible_after = until + (until - now) + timedelta(seconds=1)
        ended = [{"until": {"$lt": now}}, {"until": {"$gt": implausible_after}}]
        query = {"_id": "reconciler", "$or": [{"holder": holder}, *ended]}
        update = {"$set": {"holder": holder, "until": until}}
        try:
            with db_call(self._database):
                self._database.collection("leases").update_one(query, update, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def _update_one(self, query: _Document, update: _Document, *, lock_only: bool = False) -> _Document | None:
        """Update one execution that matches ``query``; return the document after it, None if nothing matched."""
        executions = self._executions
        if lock_only:
            executions = executions.with_options(write_concern=WriteConcern(w=1))
        projection = DECISION_PROJECTION if lock_only else READER_PROJECTION
        with db_call(self._database):
            return executions.find_one_and_update(query, update, projection, return_document=ReturnDocument.AFTER)

    def _resolve_key_conflict(self, execution: Execution, duplicate: DuplicateKeyError) -> Execution | None:
        """Return the run that holds this run's key; None if it holds it no longer, so that the insert may try again.

        Raises AlreadyRequeued if the dead letter has another run.
        """
        index = str((duplicate.details or {}).get("keyPattern"))
        if execution.requeue_of is not None and "requeue_of" in index:
            return self._find_same_requeue(execution)
        if execution.idempotency is None or "idempotency" not in index:
            raise OutcomeUnknown(f"{execution.id} was withdrawn or exists already") from duplicate
        holder = self._find_by_key(execution.integrator, execution.idempotency.key)
        if holder is None or self._clock.now() - holder.created_at < IDEMPOTENCY_KEY_TTL:
            return holder
        query = {"_id": holder.id, "integrator": holder.integrator, "idempotency.key": execution.idempotency.key}
        with db_call(self._database):
            self._executions.update_one(query, {"$unset": {"idempotency": ""}})
        return None

    def _find_same_requeue(self, execution: Execution) -> Execution | None:
        """Return the run that has requeued the same letter if it has the same key; None while no majority has it."""
        query = {"integrator": execution.integrator, "requeue_of": execution.requeue_of}
        with db_call(self._database, writes=False):
            document = self._executions.find_one(query, DECISION_PROJECTION)
        if document is None:
            return None
        holder = decode_execution(document)
        if holder.idempotency and execution.idempotency and holder.idempotency.key == execution.idempotency.key:
            return holder
        raise AlreadyRequeued(requeued_as=holder.id)

    def _find_by_key(self, integrator: str, key: str) -> Execution | None:
        query = {"integrator": str(integrator), "idempotency.key": str(key)}
        with db_call(self._database, writes=False):
            document = self._executions.find_one(query, DECISION_PROJECTION)
        return None if document is None else decode_execution(document)

    def _insert_output(self, execution: Execution, step: str, output: bytes) -> None:
        output_id = external_output_id(execution.id, step, execution.steps[step].token)
        output = self._seal.seal_external(execution.id, step, output)
        now = self._clock.now()
        insert_external_output(self._database, execution.integrator, execution.id, output_id, output, now=now)

    def _to_record(
        self,
        document: _Document,
        outputs: Iterable[str] | None,
        page: LogPageQuery | None = None,
        *,
        strict: bool = True,
    ) -> ExecutionRecord:
        """Build the record of ``document``, with the large outputs of the steps in ``outputs`` (None: all)."""
        record = decode_record(self._seal.open_document(document, strict=strict))
        steps = record.execution.steps if outputs is None else outputs
        external = self._seal.read_external(self._database, record.execution, steps, strict=strict)
        record = replace(record, outputs={**record.outputs, **external}) if external else record
        if page is None:
            return record
        first_seq = record.lines_total - document["lines_from"] + 1
        return replace(record, lines_kept=document["lines_kept"], page_first_seq=first_seq)
