"""Many executions in one round trip, in MongoDB: pages of lists, how named ones stand, and batches of inserts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from pymongo.errors import BulkWriteError

from shared.domain.execution import Execution, Record
from shared.domain.lifecycle.decision import Advance
from shared.domain.list_query import Listed, Order, Place, Wanted
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError, NotStorable, OutcomeUnknown, Unavailable
from shared.store.database import Database, at_once, call
from shared.store.executions.documents import (
    APART_FROM_DECISIONS,
    APART_FROM_LISTS,
    APART_FROM_READERS,
    decode,
    decode_event,
)
from shared.store.executions.port import KEY_KEPT, Compared
from shared.store.executions.store import MongoStore, document_of
from shared.store.server_clock import Clock

_ORDERS: Final = {Order.NEWEST: ("created_at", -1), Order.OLDEST: ("created_at", 1), Order.UPDATED: ("updated_at", 1)}
_LIVING: Final = {"status": {"$exists": True}}
_READ_AT_ONCE: Final = 20
_INSERT_S: Final = 0.001
_MS: Final = timedelta(milliseconds=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC) - _MS  # nothing was made in the millisecond after it

_Document = dict[str, Any]


class MongoMany:
    """See the port for what each verb promises; ``store`` takes the inserts that a batch cannot decide."""

    def __init__(self, database: Database, clock: Clock, store: MongoStore) -> None:
        self._database = database
        self._clock = clock
        self._store = store

    def page(self, integrator: str, wanted: Wanted, limit: int, after: Place | None = None) -> Sequence[Listed]:
        """Answer a page by the index that serves its filters best, as mongod finds out by trying."""
        by, direction = _ORDERS[wanted.order]
        with call(self._database, writes=False):
            found = self._database.collection("executions").find(_filter(integrator, wanted, after), APART_FROM_LISTS)
            rows = list(found.sort([(by, direction), ("_id", direction)]).limit(limit).batch_size(limit))
        return [Listed(decode(row), Place(row[by], row["_id"])) for row in rows]

    def compare(
        self, integrator: str, revs: Mapping[str, int | None], live_max: int, *, newest: bool = False
    ) -> Compared:
        """Compare revisions as they are read; only what is answered is decoded, for that is what takes long."""
        named = _named(integrator, revs)
        of_now = self._database.session_of_now("executions", named) if newest else nullcontext()
        with call(self._database, writes=False), of_now as session:
            found = self._database.collection("executions").find(named, APART_FROM_LISTS, session=session)
            by_id = {row["_id"]: row for row in found.batch_size(at_once(revs))}
        rows = [by_id[each] for each in revs if each in by_id]
        changed = [row for row in rows if row["rev"] != revs[row["_id"]]]
        same = [row for row in rows if row["rev"] == revs[row["_id"]]]
        live = islice((row for row in same if not ExecutionStatus(row["status"]).is_final), live_max)
        missing = [each for each in revs if each not in by_id]
        return Compared([decode(row) for row in changed], [decode(row) for row in live], len(same), missing)

    def records(self, integrator: str, ids: Collection[str], bytes_max: int) -> Sequence[Record]:
        """Answer executions whole, read a few at a time so that memory holds no more than was asked for."""
        records: list[Record] = []
        left = bytes_max
        with call(self._database, writes=False):
            executions = self._database.collection("executions")
            with executions.find(_named(integrator, ids), APART_FROM_READERS, batch_size=_READ_AT_ONCE) as found:
                for document in found:
                    records.append(_record(document))
                    left -= sum(map(len, records[-1].outputs.values()))
                    if left <= 0:
                        break
        return records

    def holders(self, integrator: str, keys: Collection[str]) -> Mapping[str, Execution]:
        """Answer who holds keys, by the index that makes them unique."""
        held = {"integrator": str(integrator), "idempotency.key": {"$in": [str(key) for key in keys]}}
        with call(self._database, writes=False):
            found = self._database.collection("executions").find(held, APART_FROM_DECISIONS)
            documents = list(found.batch_size(at_once(keys)))
        kept_since = self._clock.now() - KEY_KEPT
        runs = [run for run in map(decode, documents) if run.created_at > kept_since]
        return {run.idempotency.key: run for run in runs if run.idempotency is not None}

    def insert_all(self, accepted: Sequence[Advance]) -> Collection[int]:
        """Store runs by one unordered insert; those whose keys or ids are taken are refused, and others for reasons."""
        documents = [document_of(advance, {}) for advance in accepted]
        with call(self._database, within_s=self._database.deadline_s + len(documents) * _INSERT_S):
            try:
                self._database.collection("executions").insert_many(documents, ordered=False)
            except BulkWriteError as failed:
                if failed.details.get("writeConcernErrors"):
                    raise
                return {error["index"] for error in failed.details["writeErrors"]}
        return ()

    def create_many(self, accepted: Sequence[Advance]) -> Sequence[Execution | BucketError]:
        """Store runs by one unordered insert; one that is refused is decided by itself."""
        if not accepted:
            return []
        try:
            refused = self.insert_all(accepted)
        except (Unavailable, OutcomeUnknown, NotStorable) as error:
            return [error] * len(accepted)
        decided = self._decided([accepted[at] for at in sorted(refused)]) if refused else {}
        return [decided.get(advance.execution.id, advance.execution) for advance in accepted]

    def _decided(self, refused: Sequence[Advance]) -> Mapping[str, Execution | BucketError]:
        """What becomes, by id, of runs whose inserts were refused, and did nothing: the same batch sent twice at once.

        Who holds their keys is asked in one trip. What is left is decided one by one, until the store does not answer:
        hundreds would wait for it one after the other.
        """
        keys = {advance.execution.idempotency.key for advance in refused if advance.execution.idempotency is not None}
        decided: dict[str, Execution | BucketError] = {}
        away: BucketError | None = None
        try:
            held = self.holders(refused[0].execution.integrator, keys)
        except BucketError as error:
            held, away = {}, error
        for advance in refused:
            run = advance.execution
            holder = None if run.idempotency is None else held.get(run.idempotency.key)
            try:
                decided[run.id] = holder or away or self._store.create(advance)
            except (Unavailable, OutcomeUnknown) as error:
                decided[run.id] = error
                away = Unavailable()  # of those behind it nothing was stored
            except BucketError as error:
                decided[run.id] = error
        return decided


def _named(integrator: str, ids: Collection[str]) -> _Document:
    return {"_id": {"$in": [str(each) for each in ids]}, "integrator": str(integrator), **_LIVING}


def _record(document: _Document) -> Record:
    events = tuple(decode_event(element) for element in document.get("events", ()))
    return Record(decode(document), events, document.get("lines", 0), document.get("outputs", {}))


def _filter(integrator: str, wanted: Wanted, after: Place | None) -> _Document:
    """The filter of a page; every value of a caller stands as a plain string or moment, never as an operator."""
    named = {
        "basket_name": wanted.basket,
        "tags": wanted.tag,
        "request_id": wanted.request_id,
        "retry_of": wanted.retry_of,
    }
    chosen: _Document = {"integrator": str(integrator), **_LIVING}
    chosen |= {field: str(value) for field, value in named.items() if value is not None}
    if wanted.statuses:
        chosen["status"] = {"$in": [str(status) for status in wanted.statuses]}
    if wanted.tag is not None:
        chosen["tags.0"] = {"$exists": True}  # which the index of tags has been told of
    if wanted.updated_since is not None:
        chosen["updated_at"] = {"$gte": _up(wanted.updated_since)}
    made: list[_Document] = []
    if wanted.created_after is not None:
        made.append({"created_at": {"$gt": wanted.created_after}})
    if wanted.created_before is not None:
        made.append({"created_at": {"$lt": _up(wanted.created_before)}})
    if after is not None:
        by, direction = _ORDERS[wanted.order]
        made += _beyond(after, by, "$gt" if direction > 0 else "$lt")
    return chosen | ({"$and": made} if made else {})


def _beyond(after: Place, by: str, further: str) -> list[_Document]:
    """What lies further than a place; the first condition says nothing new, but an index is searched by it."""
    return [
        {by: {f"{further}e": after.at}},
        {"$or": [{by: {further: after.at}}, {by: after.at, "_id": {further: after.id}}]},
    ]


def _up(at: datetime) -> datetime:
    """``at`` rounded up to the millisecond: the store knows no finer ones, and the driver rounds down."""
    over = timedelta(microseconds=at.microsecond % 1_000)
    return at - over + _MS if over and at < _LAST else at
