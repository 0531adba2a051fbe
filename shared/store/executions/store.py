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

from shared.domain.execution import Execution, Lease, Page, Record
from shared.domain.lifecycle.decision import Advance
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import OutcomeUnknown, StaleWrite
from shared.store.database import Database, call
from shared.store.executions.documents import (
    APART_FROM_DECISIONS,
    APART_FROM_READERS,
    cut_to,
    decode,
    decode_event,
    encode,
    encode_event,
    second_stored,
)
from shared.store.executions.filters import living, name_apart, under
from shared.store.executions.port import KEY_KEPT, Beat, Report
from shared.store.executions.updates import changes, counted, expected
from shared.store.server_clock import Clock

# The second is for a key that its holder has just lost; a holder that no majority has would be met for as long as that.
_TRIES: Final = 2
_READ_AT_ONCE: Final = 50
_STEPS_DUE: Final = {"$map": {"input": {"$objectToArray": "$steps"}, "in": "$$this.v.due_by"}}

_Document = dict[str, Any]


class MongoStore:
    """Executions in MongoDB; see the port for what each verb promises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def _executions(self) -> Collection[_Document]:
        return self._database.collection("executions")

    @property
    def _as_of_now(self) -> Collection[_Document]:
        """The executions as this primary has them, whatever a failover may take back."""
        return self._executions.with_options(read_concern=ReadConcern("local"))

    def create(self, accepted: Advance, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store a new run by one plain insert; its key's unique index is the reservation."""
        execution = accepted.execution
        inline = dict(outputs or {})
        for step in execution.steps.values():
            if step.output_apart and step.id in inline:
                name = name_apart(execution.id, step.id, step.token or "")
                self._keep_apart(execution.integrator, execution.id, name, inline.pop(step.id))
        document = document_of(accepted, inline)
        for _ in range(_TRIES):
            try:
                with call(self._database):
                    self._executions.insert_one(document)
            except DuplicateKeyError as duplicate:
                holder = self._holder(execution, duplicate)
                if holder is not None:
                    return holder
            else:
                return execution
        raise OutcomeUnknown(f"no majority knows yet who holds the key of {execution.id}")

    def holder(self, integrator: str, key: str) -> Execution | None:
        """Answer the run that holds ``key``, by the index that makes keys unique."""
        held = self._held_by(integrator, key)
        return held if held is not None and self._is_kept(held) else None

    def withdraw(self, integrator: str, execution_id: str) -> bool:
        """Put a tombstone where an unclaimed run is or may still come to be."""
        tombstone = {"_id": execution_id, "integrator": integrator, "withdrawn_at": self._clock.now()}
        unclaimed = {"_id": execution_id, "integrator": integrator, "started_at": None}
        try:
            with call(self._database):
                self._executions.replace_one(unclaimed, tombstone, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def load(self, integrator: str, execution_id: str) -> Execution | None:
        """Answer an execution without its log lines and outputs, as this primary has it now.

        Not as a majority has it: that lies behind a claim just written, and a decision on what a failover takes
        back is refused by its version.
        """
        with call(self._database, writes=False):
            document = self._as_of_now.find_one(living(integrator, execution_id), APART_FROM_DECISIONS)
        return None if document is None else decode(document)

    def save(self, before: Execution, advance: Advance, *, lease: Lease | None = None) -> Record:
        """Write one decision, filtered by the version it was made on and, from a worker, by its lease."""
        for output in advance.outputs:
            if output.apart:
                name = name_apart(before.id, output.step, advance.execution.steps[output.step].token or "")
                self._keep_apart(before.integrator, before.id, name, output.json)
        saved = self._write(expected(before, advance, lease), changes(before, advance), lock_only=advance.lock_only)
        if saved is None:
            raise StaleWrite(f"{before.id} is no longer at version {before.version}")
        return self._record(saved, ())

    def renew(self, lease: Lease, due_by: datetime) -> Beat | None:
        """Push a lease out; the execution's own due moment becomes the least over all its steps."""
        pipeline: list[_Document] = [
            {"$set": {f"steps.{lease.step}.due_by": due_by}},
            {"$set": {"due_by": {"$min": [{"$min": _STEPS_DUE}, "$deadline"]}}},
        ]
        held = living(lease.integrator, lease.execution_id) | under(lease)
        with call(self._database):
            found = self._executions.find_one_and_update(held, pipeline, {"rev": 1, "status": 1})
        return None if found is None else Beat(found["rev"], ExecutionStatus(found["status"]))

    def report(self, lease: Lease, report: Report) -> Record | None:
        """Add log lines and progress by one update, filtered by the lease alone."""
        progress = {"percent": report.percent, "message": report.message}
        told = {f"steps.{lease.step}.{name}": value for name, value in progress.items() if value is not None}
        held = living(lease.integrator, lease.execution_id) | under(lease)
        update = counted({"$set": told} if told else {}, report.events, decision=False, dropped=report.dropped)
        saved = self._write(held, update)
        return None if saved is None else self._record(saved, ())

    def read(
        self,
        integrator: str,
        execution_id: str,
        *,
        outputs: Iterable[str] | None = None,
        page: Page | None = None,
        newest: bool = False,
    ) -> Record | None:
        """Answer an execution whole, fetching the outputs that are kept apart."""
        wanted = living(integrator, execution_id)
        of_now = self._database.session_of_now("executions", wanted) if newest else nullcontext()
        with call(self._database, writes=False), of_now as session:
            if page is None:
                document = self._executions.find_one(wanted, APART_FROM_READERS, session=session)
            else:
                cut = [{"$match": wanted}, *cut_to(page)]
                document = next(iter(self._executions.aggregate(cut, session=session)), None)
        return None if document is None else self._record(document, outputs, page)

    def overdue(self, now: datetime, far: datetime, limit: int) -> Sequence[tuple[Execution, datetime]]:
        """Answer what is due, the longest overdue first, by one indexed search."""
        due = {"$or": [{"due_by": {"$lt": now}}, {"due_by": {"$gt": far}}]}
        with call(self._database, writes=False):
            found = list(self._executions.find(due, APART_FROM_DECISIONS).sort("due_by", 1).limit(limit))
        return list(_readable(found))

    def postpone(self, executions: Sequence[Execution]) -> None:
        """Write due moments in bulk, each where its version still stands."""
        writes = []
        for execution in executions:
            # Not those that run: their leases may have been renewed since, which moves no version.
            ready = [step for step in execution.steps.values() if step.status is StepStatus.READY]
            moments: _Document = {f"steps.{step.id}.due_by": step.due_by for step in ready}
            moments["due_by"] = execution.due_by
            unchanged = living(execution.integrator, execution.id) | {"version": execution.version}
            writes.append(UpdateOne(unchanged, _set_or_unset(moments)))
        if writes:
            with call(self._database):
                self._executions.bulk_write(writes, ordered=False)

    def lead(self, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew the reconcilers' lease, a document of its own."""
        # An end further ahead than anyone would set it now was set by a clock that has since jumped back.
        impossible = until + (until - now) + timedelta(seconds=1)
        ended = [{"until": {"$lt": now}}, {"until": {"$gt": impossible}}]
        free = {"_id": "reconciler", "$or": [{"holder": holder}, *ended]}
        try:
            with call(self._database):
                self._database.collection("leases").update_one(
                    free, {"$set": {"holder": holder, "until": until}}, upsert=True
                )
        except DuplicateKeyError:
            return False
        return True

    def newest(self, limit: int, lines_max: int) -> Sequence[Record]:
        """Answer the newest executions with their log lines, without their outputs; read a few at a time."""
        fields = {"outputs": 0, "input": 0} | APART_FROM_READERS
        records: list[Record] = []
        with call(self._database, writes=False):
            found = self._executions.find({"status": {"$exists": True}}, fields).sort("_id", -1).limit(limit)
            with found.batch_size(_READ_AT_ONCE):
                for document in found:
                    records.append(self._record(document, ()))
                    lines_max -= len(records[-1].events)
                    if lines_max <= 0:
                        break
        return records

    def _write(self, accepted: _Document, update: _Document, *, lock_only: bool = False) -> _Document | None:
        """Change one execution; answer the document after it, None where it was not as it had to be."""
        executions = self._executions
        if lock_only:
            executions = executions.with_options(write_concern=WriteConcern(w=1))
        with call(self._database):
            return executions.find_one_and_update(
                accepted,
                update,
                APART_FROM_DECISIONS if lock_only else APART_FROM_READERS,
                return_document=ReturnDocument.AFTER,
            )

    def _holder(self, execution: Execution, duplicate: DuplicateKeyError) -> Execution | None:
        """The run that holds this run's key; None where it holds it no longer and the insert may try again."""
        if execution.idempotency is None or "idempotency" not in str((duplicate.details or {}).get("keyPattern")):
            raise OutcomeUnknown(f"{execution.id} was withdrawn or exists already") from duplicate
        holder = self._held_by(execution.integrator, execution.idempotency.key)
        if holder is None or self._is_kept(holder):
            return holder
        no_longer = {"_id": holder.id, "integrator": holder.integrator, "idempotency.key": execution.idempotency.key}
        with call(self._database):
            self._executions.update_one(no_longer, {"$unset": {"idempotency": ""}})
        return None

    def _held_by(self, integrator: str, key: str) -> Execution | None:
        held = {"integrator": str(integrator), "idempotency.key": str(key)}
        with call(self._database, writes=False):
            document = self._executions.find_one(held, APART_FROM_DECISIONS)
        return None if document is None else decode(document)

    def _is_kept(self, holder: Execution) -> bool:
        return self._clock.now() - holder.created_at < KEY_KEPT

    def _keep_apart(self, integrator: str, execution_id: str, name: str, output: bytes) -> None:
        """Keep a large output under the claim that made it; one of that name is the same and stays."""
        document = {
            "_id": name,
            "integrator": integrator,
            "execution_id": execution_id,
            "created_at": self._clock.now(),
            "json": output,
        }
        try:
            with call(self._database):
                self._database.collection("outputs").insert_one(document)
        except DuplicateKeyError:
            return

    def _record(self, document: _Document, outputs: Iterable[str] | None, page: Page | None = None) -> Record:
        """The record of ``document``, with those large outputs that ``outputs`` names (None: all)."""
        execution = decode(document)
        wanted = set(execution.steps) if outputs is None else set(outputs)
        apart = {
            name_apart(execution.id, step.id, step.token or ""): step.id
            for step in execution.steps.values()
            if step.output_apart and step.id in wanted and step.status is StepStatus.COMPLETED
        }
        kept = dict(document.get("outputs", {}))
        if apart:
            with call(self._database, writes=False):
                named = {"_id": {"$in": list(apart)}, "integrator": execution.integrator}
                for found in self._database.collection("outputs").find(named):
                    kept[apart[found["_id"]]] = found["json"]
        events = tuple(decode_event(element) for element in document.get("events", ()))
        total = document.get("lines", 0)
        if page is None:
            return Record(execution, events, total, kept)
        return Record(execution, events, total, kept, document["lines_kept"], total - document["lines_from"] + 1)


def document_of(accepted: Advance, outputs: Mapping[str, bytes]) -> _Document:
    """Answer the document that a new run is inserted as."""
    return {
        **encode(accepted.execution),
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


def _readable(documents: Iterable[_Document]) -> Iterator[tuple[Execution, datetime]]:
    """The executions that can be read; one that cannot must not keep all others from being rescued."""
    for document in documents:
        try:
            yield decode(document), second_stored(document)
        except (KeyError, TypeError, ValueError, AttributeError):
            structlog.get_logger().exception("an execution cannot be read", execution_id=str(document.get("_id")))
