"""Gives each audit event its number and its hash: moves it from where it was stored first to the end of the chain.

Any number of sequencers may run at once, and each may die at any point. The chain's numbers are unique, and a batch is
inserted in order, so of two sequencers that append to the same end one is refused, and reads anew. The ids of events
are unique too, so an event that is in the chain already, because a sequencer died before it removed the event, is
refused and only removed.

An event that cannot be read holds no other back: a placeholder is appended for it, and what was stored stays where it
was, marked in ``audit_pending`` and renamed in a run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from shared import fault_injection
from shared.domain.access.audit_chain import UNREADABLE_ERRORS, ChainEnd, link_hash
from shared.domain.access.audit_event import BEGUN_MAX_S, UNREADABLE, AuditEvent, Outcome, event_view, placeholder_event
from shared.store.access.audit_store import (
    OUTBOX,
    check_readable,
    decode_event,
    decode_run_event,
    encode_event,
    read_chain_end,
)
from shared.store.database import Database, db_call

BATCH_MAX: Final = 500
_ATTEMPTS_MAX: Final = 20
_RETRY_WITHIN_S: Final = 0.02
_BEGUN_MAX: Final = timedelta(seconds=BEGUN_MAX_S)
_DUPLICATE_KEY: Final = 11000
_MARK: Final = "unreadable"
"""The field of an event in ``audit_pending`` that cannot be read, and for which a placeholder is in the chain."""
_UNREADABLE_OUTBOX: Final = "audit_unreadable"

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event that has no number yet; it waits in the document ``stored_id`` of ``collection``.

    ``unreadable`` is the reason why it cannot be read, if ``event`` is a placeholder.
    """

    stored_id: object
    event: AuditEvent
    collection: str
    unreadable: str | None = None

    @property
    def event_id(self) -> str:
        """The id of the event in the chain: a text, also where somebody stored an id that is none."""
        return str(self.stored_id)


class AuditSequencer:
    """Appends the events that wait to the chain."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sequence(self, now: datetime, batches_max: int) -> bool:
        """Append what waits, at most ``batches_max`` batches; return whether nothing is left.

        ``now`` is the store's time: an event that began long ago and has no outcome is appended as ``unknown``.
        """
        for _ in range(batches_max):
            waiting = self._read_waiting(now)
            if not waiting:
                return True
            self._append(waiting)
            fault_injection.reach("audit.chained")
            self._remove(waiting)
        return not self._read_waiting(now)

    def _collection(self, name: str) -> Collection[_Document]:
        return self._database.collection(name)

    def _read_waiting(self, now: datetime) -> Sequence[_Waiting]:
        """Return the oldest events that wait, in the order of their times."""
        is_late = [{"at": {"$lt": now - _BEGUN_MAX}}, {"at": {"$not": {"$type": "date"}}}]
        is_over = {"$or": [{"outcome": {"$ne": None}}, *is_late], _MARK: {"$exists": False}}
        with db_call(self._database, writes=False):
            pending = list(self._collection("audit_pending").find(is_over).sort("_id", 1).limit(BATCH_MAX))
            outbox = self._collection("executions").find(
                {OUTBOX: {"$exists": True}}, {OUTBOX: 1, "integrator": 1, "created_at": 1, "request_id": 1}
            )
            runs = list(outbox.sort("created_at", 1).limit(BATCH_MAX))
        if overdue := [each["_id"] for each in pending if each.get("outcome") is None]:
            self._give_up(overdue)
            return self._read_waiting(now)
        waiting = [_decode(each, decode_event, "audit_pending", now) for each in pending]
        waiting += [_decode(each, decode_run_event, "executions", now) for each in runs]
        return sorted(waiting, key=lambda each: (each.event.at, each.event_id))

    def _give_up(self, event_ids: Sequence[str]) -> None:
        """End what began long ago as ``unknown``, where it waits: its process then finds that it comes too late."""
        query = {"_id": {"$in": [*event_ids]}, "outcome": None}
        with db_call(self._database):
            self._collection("audit_pending").update_many(query, {"$set": {"outcome": str(Outcome.UNKNOWN)}})

    def _append(self, waiting: Sequence[_Waiting]) -> None:
        """Append the events that are not in the chain yet; others may append to it at the same time."""
        left = list(waiting)
        for _ in range(_ATTEMPTS_MAX):
            if self._try_append(left):
                return
            time.sleep(random.uniform(0, _RETRY_WITHIN_S))  # noqa: S311  two sequencers must not meet again
            done = self._find_chained([each.event_id for each in left])
            left = [each for each in left if each.event_id not in done]
            if not left:
                return

    def _try_append(self, waiting: Sequence[_Waiting]) -> bool:
        """Insert the events after the end of the chain; False if another sequencer was faster with any of them."""
        with db_call(self._database):
            end = read_chain_end(self._collection("audit"))
            try:
                self._collection("audit").insert_many(_link(end, waiting), ordered=True)
            except BulkWriteError as failed:
                if any(error["code"] != _DUPLICATE_KEY for error in _write_errors(failed)):
                    raise
                return False
        return True

    def _find_chained(self, event_ids: Sequence[str]) -> Mapping[str, object]:
        """Return the actions of those of the events that are in the chain, by their ids."""
        query = {"event_id": {"$in": [*event_ids]}}
        with db_call(self._database, writes=False):
            found = self._collection("audit").find(query, {"event_id": 1, "action": 1})
            return {each["event_id"]: each.get("action") for each in found}

    def _remove(self, waiting: Sequence[_Waiting]) -> None:
        """Remove the events that are in the chain from where they waited; keep what a placeholder stands for.

        The placeholder may be of a sequencer of another version: only that could not read the event.
        """
        actions = self._find_chained([each.event_id for each in waiting])
        kept = [each for each in waiting if actions.get(each.event_id) == UNREADABLE]
        removed = [each for each in waiting if actions.get(each.event_id, UNREADABLE) != UNREADABLE]
        with db_call(self._database):
            if ids := _ids_in(removed, "audit_pending"):
                self._collection("audit_pending").delete_many({"_id": {"$in": ids}})
            if ids := _ids_in(kept, "audit_pending"):
                self._collection("audit_pending").update_many({"_id": {"$in": ids}}, {"$set": {_MARK: True}})
            if ids := _ids_in(removed, "executions"):
                self._collection("executions").update_many({"_id": {"$in": ids}}, {"$unset": {OUTBOX: ""}})
            if ids := _ids_in(kept, "executions"):
                renamed = {"$rename": {OUTBOX: _UNREADABLE_OUTBOX}}
                self._collection("executions").update_many({"_id": {"$in": ids}}, renamed)
        for each in kept:
            if each.unreadable is not None:
                structlog.get_logger().error(
                    "an audit event cannot be read; a placeholder is in the log, and it stays where it was stored",
                    event_id=each.event_id, collection=each.collection, reason=each.unreadable,
                )  # fmt: skip


def _decode(document: _Document, decode: Callable[[_Document], AuditEvent], collection: str, now: datetime) -> _Waiting:
    """Return the event that waits in a document, or a placeholder for one that cannot be read or hashed."""
    try:
        return _Waiting(document["_id"], check_readable(decode(document)), collection)
    except UNREADABLE_ERRORS as error:
        outbox = document.get(OUTBOX)
        # What a run says of itself counts more than what its damaged event says of it.
        members = (outbox if isinstance(outbox, dict) else {}) | {"at": document.get("created_at")} | document
        return _Waiting(document["_id"], placeholder_event(members, document["_id"], now), collection, repr(error))


def _ids_in(waiting: Sequence[_Waiting], collection: str) -> list[object]:
    return [each.stored_id for each in waiting if each.collection == collection]


def _link(end: ChainEnd, waiting: Sequence[_Waiting]) -> list[_Document]:
    """Return the documents that follow the end of the chain."""
    documents = []
    seq, prev_hash = end.seq, end.hash
    for each in waiting:
        seq += 1
        own_hash = link_hash(prev_hash, event_view(seq, each.event))
        documents.append(
            {"_id": seq, "event_id": each.event_id, "prev_hash": prev_hash, "hash": own_hash} | encode_event(each.event)
        )
        prev_hash = own_hash
    return documents


def _write_errors(failed: BulkWriteError) -> Sequence[Mapping[str, Any]]:
    """Return the refusals of single documents; raises ``failed`` if it says that no majority has the rest."""
    if (failed.details or {}).get("writeConcernErrors"):
        raise failed
    errors: Sequence[Mapping[str, Any]] = (failed.details or {}).get("writeErrors", ())
    return errors
