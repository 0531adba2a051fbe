"""The audit log in MongoDB: events that wait for their number, and the chain of those that have one.

A new event is in ``audit_pending``, or, if it tells of a new run, within the document of that run (a transactional
outbox): one insert stores both, so there is no run without its event. The sequencer moves each into ``audit``, which
only grows: no retention deletes from it, and no document of it is ever changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import structlog
from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from shared.domain.access.audit_chain import UNREADABLE_ERRORS, ChainEnd, link_hash
from shared.domain.access.audit_event import AuditEvent, Outcome, event_view, placeholder_event
from shared.store.database import Database, db_call
from shared.timestamps import UNIX_EPOCH

OUTBOX: Final = "audit"
"""The field of a run that holds its event until the event is in the chain."""
_READ_BATCH: Final = 500
_NAMES: Final = tuple(each.name for each in fields(AuditEvent))

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChainedEvent:
    """An event of the chain, with its number and both hashes."""

    seq: int
    event: AuditEvent
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which events a reader wants: of one integrator (None: of all), of some actions, of one subject."""

    integrator: str | None = None
    actions: Sequence[str] | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Events in the order of their numbers; ``next_seq`` is the last number that has been looked at."""

    events: Sequence[ChainedEvent]
    next_seq: int
    end: ChainEnd


class MongoAuditStore:
    """The audit log; all methods raise what the store raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def _pending(self) -> Collection[_Document]:
        return self._database.collection("audit_pending")

    @property
    def _chain(self) -> Collection[_Document]:
        return self._database.collection("audit")

    def add(self, event: AuditEvent, event_id: str | None = None) -> None:
        """Store an event that is complete; a second call with the same id changes nothing."""
        self._insert(encode_event(event), event_id or new_event_id())

    def begin(self, event: AuditEvent) -> str:
        """Store the event of a write that has not been made yet, without its outcome; return the event's id."""
        event_id = new_event_id()
        self._insert({**encode_event(event), "outcome": None}, event_id)
        return event_id

    def complete(self, event_id: str, event: AuditEvent) -> None:
        """Store how the write of :meth:`begin` has ended; a second call changes nothing.

        If this comes so late that the event was given up as ``unknown``, the end is an event of its own.
        """
        with db_call(self._database):
            query = {"_id": event_id, "outcome": None}
            is_completed = self._pending.update_one(query, {"$set": encode_event(event)}).matched_count
        if not is_completed and event.outcome is not Outcome.UNKNOWN and self._is_given_up(event_id):
            self.add(event, f"{event_id}-end")

    def _is_given_up(self, event_id: str) -> bool:
        unknown = {"outcome": str(Outcome.UNKNOWN)}
        with db_call(self._database, writes=False):
            waits = self._pending.find_one({"_id": event_id} | unknown, {"_id": 1}) is not None
            return waits or self._chain.find_one({"event_id": event_id} | unknown, {"_id": 1}) is not None

    def read_page(self, query: AuditQuery, after: int, limit: int) -> AuditPage:
        """Return at most ``limit`` events after the number ``after``, in their order.

        The end of the chain is read first, and nothing after it: so an event that is stored meanwhile is on a later
        page. A causal session keeps the second read from seeing less than the first. A placeholder stands for an event
        that cannot be read.
        """
        with db_call(self._database, writes=False), self._database.session() as session:
            end = read_chain_end(self._chain, session)
            where: _Document = {"_id": {"$gt": after, "$lte": end.seq}}
            if query.integrator is not None:
                where["integrator"] = str(query.integrator)
            if query.actions is not None:
                where["action"] = {"$in": [*query.actions]}
            if query.subject is not None:
                where["subject"] = str(query.subject)
            found = self._chain.find(where, session=session).sort("_id", 1).limit(limit)
            events = [decode_chained(document) for document in found]
        return AuditPage(events, events[-1].seq if len(events) == limit else max(after, end.seq), end)

    def read_all(self, after: int = 0) -> Iterator[ChainedEvent]:
        """Yield the whole chain after a number, of all integrators."""
        while True:
            page = self.read_page(AuditQuery(), after, _READ_BATCH)
            yield from page.events
            if page.next_seq >= page.end.seq:
                return
            after = page.next_seq

    def _insert(self, document: _Document, event_id: str) -> None:
        with db_call(self._database):
            self._pending.update_one({"_id": event_id}, {"$setOnInsert": document}, upsert=True)


def new_event_id() -> str:
    """Return an id for an event; the ids of one process grow."""
    return str(ObjectId())


def encode_event(event: AuditEvent) -> _Document:
    """Return the fields of an event that have a value."""
    values = {name: getattr(event, name) for name in _NAMES}
    return {name: value for name, value in values.items() if value is not None} | {"outcome": str(event.outcome)}


def decode_event(document: Mapping[str, Any]) -> AuditEvent:
    """Return the event that a document holds; one whose end was never stored has the outcome ``unknown``."""
    values = {name: document[name] for name in _NAMES if name in document}
    return AuditEvent(**{**values, "outcome": Outcome(document.get("outcome") or Outcome.UNKNOWN)})


def decode_run_event(run: Mapping[str, Any]) -> AuditEvent:
    """Return the event that the document of a new run holds: what was acted on is the run, or what it was made of."""
    outbox = {name: value for name, value in run[OUTBOX].items() if name in _NAMES}
    acted_on = outbox.pop("object", None)
    event = AuditEvent(
        at=run["created_at"],
        outcome=Outcome.OK,
        integrator=run["integrator"],
        request_id=run["request_id"],
        object=acted_on or run["_id"],
        **outbox,
    )
    return event if acted_on is None else replace(event, after=json.dumps({"execution_id": run["_id"]}))


def check_readable(event: AuditEvent) -> AuditEvent:
    """Return an event; raises one of ``UNREADABLE_ERRORS`` if it cannot be shown or has no hash."""
    link_hash("", event_view(0, event))
    return event


def decode_chained(document: Mapping[str, Any]) -> ChainedEvent:
    """Return the event that a document of the chain holds; a placeholder, which lacks its hash, if it was changed."""
    try:
        event = check_readable(decode_event(document))
    except UNREADABLE_ERRORS as error:
        structlog.get_logger().error("an audit event cannot be read", seq=document["_id"], reason=repr(error))
        event = placeholder_event(document, document.get("event_id"), UNIX_EPOCH)
    return ChainedEvent(document["_id"], event, _hash_text(document, "prev_hash"), _hash_text(document, "hash"))


def read_chain_end(chain: Collection[_Document], session: ClientSession | None = None) -> ChainEnd:
    """Return the end of the chain: its event with the highest number. What has no number is not in it."""
    is_numbered = {"_id": {"$type": "number"}}
    last = chain.find_one(is_numbered, {"hash": 1}, sort=[("_id", -1)], session=session)
    return ChainEnd() if last is None else ChainEnd(last["_id"], _hash_text(last, "hash"))


def _hash_text(document: Mapping[str, Any], name: str) -> str:
    """Return a hash of a document; an empty text, which is nobody's, if it was removed or changed into no text."""
    value = document.get(name)
    return value if isinstance(value, str) else ""
