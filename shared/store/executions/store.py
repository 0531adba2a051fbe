"""MongoDB as the place that remembers executions: plain inserts and filtered updates of single documents.

Write concern and read concern are majority, journalled: only what a failover cannot take back leaves the engine.
The one exception is a claim written alone, which is a lock and not a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
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
    encode_event,
    encode_execution,
    log_page_stages,
    stored_at_of,
)
from shared.store.executions.filters import execution_filter, external_output_id, lease_filter
from shared.store.executions.port import IDEMPOTENCY_KEY_TTL, LeaseRenewal, ProgressReport
from shared.store.executions.updates import decision_filter, decision_update, with_counters
from shared.store.server_clock import Clock

# The second is for a key that its holder has just lost; a holder that no majority has would be met for as long as that.
_INSERT_ATTEMPTS: Final = 2
_CURSOR_BATCH_SIZE: Final = 50
_STEP_DUE_MOMENTS: Final = {"$map": {"input": {"$objectToArray": "$steps"}, "in": "$$this.v.due_by"}}

_Document = dict[str, Any]


class MongoExecutionStore:
    """Executions in MongoDB; see the port for what each verb promises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def _executions(self) -> Collection[_Document]:
        return self._database.collection("executions")

    @property
    def _local_executions(self) -> Collection[_Document]:
        """The executions as this primary has them, whatever a failover may take back."""
        return self._executions.with_options(read_concern=ReadConcern("local"))

    def create(self, decision: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store a new run by one plain insert; its key's unique index is the reservation."""
        execution = decision.execution
        inline = dict(outputs or {})
        for step in execution.steps.values():
            if step.output_apart and step.id in inline:
                name = external_output_id(execution.id, step.id, step.token or "")
                self._insert_external_output(execution.integrator, execution.id, name, inline.pop(step.id))
        document = new_document(decision, inline)
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
        """Answer the run that holds ``key``, by the index that makes keys unique."""
        held = self._find_by_key(integrator, key)
        return held if held is not None and self._is_key_in_force(held) else None

    def withdraw(self, integrator: str, execution_id: str) -> bool:
        """Put a tombstone where an unclaimed run is or may still come to be."""
        tombstone = {"_id": execution_id, "integrator": integrator, "withdrawn_at": self._clock.now()}
        unclaimed = {"_id": execution_id, "integrator": integrator, "started_at": None}
        try:
            with db_call(self._database):
                self._executions.replace_one(unclaimed, tombstone, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def load(self, integrator: str, execution_id: str) -> Execution | None:
        """Answer an execution without its log lines and outputs, as this primary has it now.

        Not as a majority has it: that lies behind a claim just written, and a decision on what a failover takes
        back is refused by its version.
        """
        with db_call(self._database, writes=False):
            document = self._local_executions.find_one(execution_filter(integrator, execution_id), DECISION_PROJECTION)
        return None if document is None else decode_execution(document)

    def save(self, before: Execution, decision: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Write one decision, filtered by the version it was made on and, from a worker, by its lease."""
        for output in decision.outputs:
            if output.is_external:
                name = external_output_id(before.id, output.step, decision.execution.steps[output.step].token or "")
                self._insert_external_output(before.integrator, before.id, name, output.json)
        saved = self._update_one(
            decision_filter(before, decision, lease), decision_update(before, decision), lock_only=decision.is_lock_only
        )
        if saved is None:
            raise StaleWrite(f"{before.id} is no longer at version {before.version}")
        return self._to_record(saved, ())

    def renew(self, lease: Lease, due_by: datetime) -> LeaseRenewal | None:
        """Push a lease out; the execution's own due moment becomes the least over all its steps."""
        pipeline: list[_Document] = [
            {"$set": {f"steps.{lease.step}.due_by": due_by}},
            {"$set": {"due_by": {"$min": [{"$min": _STEP_DUE_MOMENTS}, "$deadline"]}}},
        ]
        held = execution_filter(lease.integrator, lease.execution_id) | lease_filter(lease)
        with db_call(self._database):
            found = self._executions.find_one_and_update(held, pipeline, {"rev": 1, "status": 1})
        return None if found is None else LeaseRenewal(found["rev"], ExecutionStatus(found["status"]))

    def report(self, lease: Lease, report: ProgressReport) -> ExecutionRecord | None:
        """Add log lines and progress by one update, filtered by the lease alone."""
        progress = {"percent": report.percent, "message": report.message}
        told = {f"steps.{lease.step}.{name}": value for name, value in progress.items() if value is not None}
        held = execution_filter(lease.integrator, lease.execution_id) | lease_filter(lease)
        update = with_counters({"$set": told} if told else {}, report.events, is_decision=False, dropped=report.dropped)
        saved = self._update_one(held, update)
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
        """Answer an execution whole, fetching the outputs that are kept apart."""
        wanted = execution_filter(integrator, execution_id)
        of_now = self._database.causal_session("executions", wanted) if causal else nullcontext()
        with db_call(self._database, writes=False), of_now as session:
            if page is None:
                document = self._executions.find_one(wanted, READER_PROJECTION, session=session)
            else:
                cut = [{"$match": wanted}, *log_page_stages(page)]
                document = next(iter(self._executions.aggregate(cut, session=session)), None)
        return None if document is None else self._to_record(document, outputs, page)

    def find_overdue(
        self, now: datetime, implausible_after: datetime, limit: int
    ) -> Sequence[tuple[Execution, datetime]]:
        """Answer what is due, the longest overdue first, by one indexed search."""
        due = {"$or": [{"due_by": {"$lt": now}}, {"due_by": {"$gt": implausible_after}}]}
        with db_call(self._database, writes=False):
            found = list(self._executions.find(due, DECISION_PROJECTION).sort("due_by", 1).limit(limit))
        return list(_decode_readable(found))

    def postpone(self, executions: Sequence[Execution]) -> None:
        """Write due moments in bulk, each where its version still stands."""
        writes = []
        for execution in executions:
            # Not those that run: their leases may have been renewed since, which moves no version.
            ready = [step for step in execution.steps.values() if step.status is StepStatus.READY]
            moments: _Document = {f"steps.{step.id}.due_by": step.due_by for step in ready}
            moments["due_by"] = execution.due_by
            unchanged = execution_filter(execution.integrator, execution.id) | {"version": execution.version}
            writes.append(UpdateOne(unchanged, _set_or_unset(moments)))
        if writes:
            with db_call(self._database):
                self._executions.bulk_write(writes, ordered=False)

    def acquire_leadership(self, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew the reconcilers' lease, a document of its own."""
        # An end further ahead than anyone would set it now was set by a clock that has since jumped back.
        impossible = until + (until - now) + timedelta(seconds=1)
        ended = [{"until": {"$lt": now}}, {"until": {"$gt": impossible}}]
        free = {"_id": "reconciler", "$or": [{"holder": holder}, *ended]}
        try:
            with db_call(self._database):
                self._database.collection("leases").update_one(
                    free, {"$set": {"holder": holder, "until": until}}, upsert=True
                )
        except DuplicateKeyError:
            return False
        return True

    def read_newest(self, limit: int, lines_max: int) -> Sequence[ExecutionRecord]:
        """Answer the newest executions with their log lines, without their outputs; read a few at a time."""
        fields = {"outputs": 0, "input": 0} | READER_PROJECTION
        records: list[ExecutionRecord] = []
        with db_call(self._database, writes=False):
            found = self._executions.find({"status": {"$exists": True}}, fields).sort("_id", -1).limit(limit)
            with found.batch_size(_CURSOR_BATCH_SIZE):
                for document in found:
                    records.append(self._to_record(document, ()))
                    lines_max -= len(records[-1].events)
                    if lines_max <= 0:
                        break
        return records

    def _update_one(self, accepted: _Document, update: _Document, *, lock_only: bool = False) -> _Document | None:
        """Change one execution; answer the document after it, None where it was not as it had to be."""
        executions = self._executions
        if lock_only:
            executions = executions.with_options(write_concern=WriteConcern(w=1))
        with db_call(self._database):
            return executions.find_one_and_update(
                accepted,
                update,
                DECISION_PROJECTION if lock_only else READER_PROJECTION,
                return_document=ReturnDocument.AFTER,
            )

    def _resolve_key_conflict(self, execution: Execution, duplicate: DuplicateKeyError) -> Execution | None:
        """The run that holds this run's key; None where it holds it no longer and the insert may try again."""
        if execution.idempotency is None or "idempotency" not in str((duplicate.details or {}).get("keyPattern")):
            raise OutcomeUnknown(f"{execution.id} was withdrawn or exists already") from duplicate
        holder = self._find_by_key(execution.integrator, execution.idempotency.key)
        if holder is None or self._is_key_in_force(holder):
            return holder
        no_longer = {"_id": holder.id, "integrator": holder.integrator, "idempotency.key": execution.idempotency.key}
        with db_call(self._database):
            self._executions.update_one(no_longer, {"$unset": {"idempotency": ""}})
        return None

    def _find_by_key(self, integrator: str, key: str) -> Execution | None:
        held = {"integrator": str(integrator), "idempotency.key": str(key)}
        with db_call(self._database, writes=False):
            document = self._executions.find_one(held, DECISION_PROJECTION)
        return None if document is None else decode_execution(document)

    def _is_key_in_force(self, holder: Execution) -> bool:
        return self._clock.now() - holder.created_at < IDEMPOTENCY_KEY_TTL

    def _insert_external_output(self, integrator: str, execution_id: str, name: str, output: bytes) -> None:
        """Keep a large output under the claim that made it; one of that name is the same and stays."""
        document = {
            "_id": name,
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
        """The record of ``document``, with those large outputs that ``outputs`` names (None: all)."""
        execution = decode_execution(document)
        wanted = set(execution.steps) if outputs is None else set(outputs)
        apart = {
            external_output_id(execution.id, step.id, step.token or ""): step.id
            for step in execution.steps.values()
            if step.output_apart and step.id in wanted and step.status is StepStatus.COMPLETED
        }
        kept = dict(document.get("outputs", {}))
        if apart:
            with db_call(self._database, writes=False):
                named = {"_id": {"$in": list(apart)}, "integrator": execution.integrator}
                for found in self._database.collection("outputs").find(named):
                    kept[apart[found["_id"]]] = found["json"]
        events = tuple(decode_event(element) for element in document.get("events", ()))
        total = document.get("lines", 0)
        if page is None:
            return ExecutionRecord(execution, events, total, kept)
        return ExecutionRecord(
            execution, events, total, kept, document["lines_kept"], total - document["lines_from"] + 1
        )


def new_document(accepted: Decision, outputs: Mapping[str, bytes]) -> _Document:
    """Answer the document that a new run is inserted as."""
    return {
        **encode_execution(accepted.execution),
        "events": [encode_event(event) for event in accepted.events],
        "lines": len(accepted.events),
        "outputs": outputs,
        "updated_at": accepted.execution.created_at,
        "stored_at": Timestamp(0, 0),  # mongod fills it with its own time when the insert is applied
    }


def _set_or_unset(fields: _Document) -> _Document:
    to_set = {name: value for name, value in fields.items() if value is not None}
    to_unset = {name: "" for name, value in fields.items() if value is None}
    return {operator: names for operator, names in (("$set", to_set), ("$unset", to_unset)) if names}


def _decode_readable(documents: Iterable[_Document]) -> Iterator[tuple[Execution, datetime]]:
    """The executions that can be read; one that cannot must not keep all others from being rescued."""
    for document in documents:
        try:
            yield decode_execution(document), stored_at_of(document)
        except (KeyError, TypeError, ValueError, AttributeError):
            structlog.get_logger().exception("an execution cannot be read", execution_id=str(document.get("_id")))
