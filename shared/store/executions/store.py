"""Executions in MongoDB: plain inserts and filtered (optimistic) updates of single documents.

Write concern is majority, journalled, and read concern is majority: only what a failover cannot take back leaves the
engine. The one exception is a claim that is written alone: it is a lock and not a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any, Final

from bson import Timestamp
from pymongo import ReturnDocument, UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from shared.domain.execution import Execution, ExecutionRecord, Lease, LogPageQuery
from shared.domain.lifecycle.decision import Decision
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import OutcomeUnknown, StaleWrite
from shared.store.database import Database, db_call
from shared.store.executions.documents import (
    DECISION_PROJECTION,
    READER_PROJECTION,
    decode_event,
    decode_execution,
    decode_readable,
    encode_event,
    encode_execution,
    log_page_stages,
)
from shared.store.executions.filters import execution_filter, external_output_id, lease_filter
from shared.store.executions.port import IDEMPOTENCY_KEY_TTL, LeaseRenewal, ProgressReport
from shared.store.executions.updates import decision_filter, decision_update, set_or_unset, with_counters
from shared.store.server_clock import Clock

# The second is for a key that its holder has just lost; a holder that no majority has yet refuses every attempt.
_INSERT_ATTEMPTS: Final = 2
_CURSOR_BATCH_SIZE: Final = 50
_STEP_DUE_TIMES: Final = {"$map": {"input": {"$objectToArray": "$steps"}, "in": "$$this.v.due_by"}}

_Document = dict[str, Any]


class MongoExecutionStore:
    """The execution store in MongoDB; the port documents what each method promises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def _executions(self) -> Collection[_Document]:
        return self._database.collection("executions")

    @property
    def _local_executions(self) -> Collection[_Document]:
        """The executions with read concern local: as this primary has them, even if a failover may take that back."""
        return self._executions.with_options(read_concern=ReadConcern("local"))

    def create(self, decision: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store a new run by one plain insert; the unique index of idempotency keys is the reservation."""
        execution = decision.execution
        inline_outputs = dict(outputs or {})
        for step in execution.steps.values():
            if step.output_apart and step.id in inline_outputs:
                output_id = external_output_id(execution.id, step.id, step.token or "")
                self._insert_external_output(execution.integrator, execution.id, output_id, inline_outputs.pop(step.id))
        document = new_document(decision, inline_outputs)
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
        """Return the run that holds the idempotency key ``key``, by the unique index; None if none is in force."""
        holder = self._find_by_key(integrator, key)
        return holder if holder is not None and self._is_key_in_force(holder) else None

    def withdraw(self, integrator: str, execution_id: str) -> bool:
        """Replace an unclaimed run by a tombstone, which also refuses an insert that arrives later."""
        tombstone = {"_id": execution_id, "integrator": integrator, "withdrawn_at": self._clock.now()}
        unclaimed = {"_id": execution_id, "integrator": integrator, "started_at": None}
        try:
            with db_call(self._database):
                self._executions.replace_one(unclaimed, tombstone, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def load(self, integrator: str, execution_id: str) -> Execution | None:
        """Return an execution without log lines and outputs, as this primary has it now (read concern local).

        A majority read lags behind a new claim; a decision on what a failover takes back is refused by its version.
        """
        with db_call(self._database, writes=False):
            document = self._local_executions.find_one(execution_filter(integrator, execution_id), DECISION_PROJECTION)
        return None if document is None else decode_execution(document)

    def save(self, before: Execution, decision: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Write one decision (optimistic write), filtered by the version it was made on and by a worker's lease."""
        for output in decision.outputs:
            if output.is_external:
                token = decision.execution.steps[output.step].token or ""
                output_id = external_output_id(before.id, output.step, token)
                self._insert_external_output(before.integrator, before.id, output_id, output.json)
        saved = self._update_one(
            decision_filter(before, decision, lease), decision_update(before, decision), lock_only=decision.is_lock_only
        )
        if saved is None:
            raise StaleWrite(f"{before.id} is no longer at version {before.version}")
        return self._to_record(saved, ())

    def renew(self, lease: Lease, due_by: datetime) -> LeaseRenewal | None:
        """Renew a lease until ``due_by``; the execution's own ``due_by`` becomes the earliest of all its steps."""
        pipeline: list[_Document] = [
            {"$set": {f"steps.{lease.step}.due_by": due_by}},
            {"$set": {"due_by": {"$min": [{"$min": _STEP_DUE_TIMES}, "$deadline"]}}},
        ]
        query = execution_filter(lease.integrator, lease.execution_id) | lease_filter(lease)
        with db_call(self._database):
            document = self._executions.find_one_and_update(query, pipeline, {"rev": 1, "status": 1})
        return None if document is None else LeaseRenewal(document["rev"], ExecutionStatus(document["status"]))

    def report(self, lease: Lease, report: ProgressReport) -> ExecutionRecord | None:
        """Add log lines and progress by one update, filtered by the lease alone."""
        progress = {"percent": report.percent, "message": report.message}
        fields = {f"steps.{lease.step}.{name}": value for name, value in progress.items() if value is not None}
        query = execution_filter(lease.integrator, lease.execution_id) | lease_filter(lease)
        update: _Document = {"$set": fields} if fields else {}
        update = with_counters(update, report.events, is_decision=False, dropped=report.dropped)
        saved = self._update_one(query, update)
        return None if saved is None else self._to_record(saved, ())

    def read(
        self,
        integrator: str,
        execution_id: str,
        *,
        outputs: Iterable[str] | None = None,
        page: LogPageQuery | None = None,
        causal: bool = False,
    ) -> ExecutionRecord | None:
        """Return a complete execution, with the large outputs, which are stored in a collection of their own."""
        query = execution_filter(integrator, execution_id)
        session_context = self._database.causal_session("executions", query) if causal else nullcontext()
        with db_call(self._database, writes=False), session_context as session:
            if page is None:
                document = self._executions.find_one(query, READER_PROJECTION, session=session)
            else:
                stages = [{"$match": query}, *log_page_stages(page)]
                document = next(iter(self._executions.aggregate(stages, session=session)), None)
        return None if document is None else self._to_record(document, outputs, page)

    def find_overdue(
        self, now: datetime, implausible_after: datetime, limit: int
    ) -> Sequence[tuple[Execution, datetime]]:
        """Return overdue executions, the longest overdue first, by one indexed search."""
        query = {"$or": [{"due_by": {"$lt": now}}, {"due_by": {"$gt": implausible_after}}]}
        with db_call(self._database, writes=False):
            documents = list(self._executions.find(query, DECISION_PROJECTION).sort("due_by", 1).limit(limit))
        return list(decode_readable(documents))

    def postpone(self, executions: Sequence[Execution]) -> None:
        """Write due times in bulk, each only if the version is still the same."""
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
        """Take or renew the leader lease of the reconcilers, which is a document of its own."""
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

    def read_newest(self, limit: int, lines_max: int) -> Sequence[ExecutionRecord]:
        """Return the newest executions with their log lines, without outputs; they are read a few at a time."""
        projection = {"outputs": 0, "input": 0} | READER_PROJECTION
        records: list[ExecutionRecord] = []
        with db_call(self._database, writes=False):
            cursor = self._executions.find({"status": {"$exists": True}}, projection).sort("_id", -1).limit(limit)
            with cursor.batch_size(_CURSOR_BATCH_SIZE):
                for document in cursor:
                    records.append(self._to_record(document, ()))
                    lines_max -= len(records[-1].events)
                    if lines_max <= 0:
                        break
        return records

    def _update_one(self, query: _Document, update: _Document, *, lock_only: bool = False) -> _Document | None:
        """Update one execution that matches ``accepted``; return the document after it, None if nothing matched."""
        executions = self._executions
        if lock_only:
            executions = executions.with_options(write_concern=WriteConcern(w=1))
        with db_call(self._database):
            return executions.find_one_and_update(
                query,
                update,
                DECISION_PROJECTION if lock_only else READER_PROJECTION,
                return_document=ReturnDocument.AFTER,
            )

    def _resolve_key_conflict(self, execution: Execution, duplicate: DuplicateKeyError) -> Execution | None:
        """Return the run that holds this run's key; None if it holds it no longer, so that the insert may try again."""
        if execution.idempotency is None or "idempotency" not in str((duplicate.details or {}).get("keyPattern")):
            raise OutcomeUnknown(f"{execution.id} was withdrawn or exists already") from duplicate
        holder = self._find_by_key(execution.integrator, execution.idempotency.key)
        if holder is None or self._is_key_in_force(holder):
            return holder
        query = {"_id": holder.id, "integrator": holder.integrator, "idempotency.key": execution.idempotency.key}
        with db_call(self._database):
            self._executions.update_one(query, {"$unset": {"idempotency": ""}})
        return None

    def _find_by_key(self, integrator: str, key: str) -> Execution | None:
        query = {"integrator": str(integrator), "idempotency.key": str(key)}
        with db_call(self._database, writes=False):
            document = self._executions.find_one(query, DECISION_PROJECTION)
        return None if document is None else decode_execution(document)

    def _is_key_in_force(self, holder: Execution) -> bool:
        return self._clock.now() - holder.created_at < IDEMPOTENCY_KEY_TTL

    def _insert_external_output(self, integrator: str, execution_id: str, output_id: str, output: bytes) -> None:
        """Store a large output under the id of the claim that made it; an existing one of that id is the same."""
        document = {
            "_id": output_id,
            "integrator": integrator,
            "execution_id": execution_id,
            "created_at": self._clock.now(),
            "json": output,
        }
        try:
            with db_call(self._database):
                self._database.collection("outputs").insert_one(document)
        except DuplicateKeyError:
            return

    def _to_record(
        self, document: _Document, outputs: Iterable[str] | None, page: LogPageQuery | None = None
    ) -> ExecutionRecord:
        """Build the record of ``document``, with the large outputs of the steps in ``outputs`` (None: all)."""
        execution = decode_execution(document)
        step_ids = set(execution.steps) if outputs is None else set(outputs)
        step_by_output_id = {
            external_output_id(execution.id, step.id, step.token or ""): step.id
            for step in execution.steps.values()
            if step.output_apart and step.id in step_ids and step.status is StepStatus.COMPLETED
        }
        output_by_step = dict(document.get("outputs", {}))
        if step_by_output_id:
            with db_call(self._database, writes=False):
                query = {"_id": {"$in": list(step_by_output_id)}, "integrator": execution.integrator}
                for row in self._database.collection("outputs").find(query):
                    output_by_step[step_by_output_id[row["_id"]]] = row["json"]
        events = tuple(decode_event(element) for element in document.get("events", ()))
        total = document.get("lines", 0)
        if page is None:
            return ExecutionRecord(execution, events, total, output_by_step)
        page_first_seq = total - document["lines_from"] + 1
        return ExecutionRecord(execution, events, total, output_by_step, document["lines_kept"], page_first_seq)


def new_document(decision: Decision, outputs: Mapping[str, bytes]) -> _Document:
    """Build the document of a new run."""
    return {
        **encode_execution(decision.execution),
        "events": [encode_event(event) for event in decision.events],
        "lines": len(decision.events),
        "outputs": outputs,
        "updated_at": decision.execution.created_at,
        "stored_at": Timestamp(0, 0),  # mongod fills it with its own time when the insert is applied
    }
