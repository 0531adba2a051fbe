"""Many executions in one round trip, in MongoDB: pages of lists, how named ones stand, and batches of inserts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from pymongo.errors import BulkWriteError

from shared.domain.execution import Execution, ExecutionRecord
from shared.domain.lifecycle.decision import Decision
from shared.domain.list_query import ListOrder, ListPosition, ListQuery, ListRow
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError, NotStorable, OutcomeUnknown, Unavailable
from shared.store.database import Database, db_call, full_batch_size
from shared.store.executions.documents import (
    DECISION_PROJECTION,
    LIST_PROJECTION,
    READER_PROJECTION,
    decode_event,
    decode_execution,
)
from shared.store.executions.port import IDEMPOTENCY_KEY_TTL, RevisionComparison
from shared.store.executions.store import MongoExecutionStore, new_document
from shared.store.server_clock import Clock

_SORT_BY_ORDER: Final = {
    ListOrder.NEWEST: ("created_at", -1),
    ListOrder.OLDEST: ("created_at", 1),
    ListOrder.UPDATED: ("updated_at", 1),
}
_NOT_WITHDRAWN: Final = {"status": {"$exists": True}}
_CURSOR_BATCH_SIZE: Final = 20
_INSERT_EXTRA_S: Final = 0.001
_MS: Final = timedelta(milliseconds=1)
_LATEST_MOMENT: Final = datetime.max.replace(tzinfo=UTC) - _MS  # nothing was made in the millisecond after it

_Document = dict[str, Any]


class MongoExecutionQueries:
    """See the port for what each verb promises; ``store`` takes the inserts that a batch cannot decide."""

    def __init__(self, database: Database, clock: Clock, store: MongoExecutionStore) -> None:
        self._database = database
        self._clock = clock
        self._store = store

    def list_page(
        self, integrator: str, query: ListQuery, limit: int, after: ListPosition | None = None
    ) -> Sequence[ListRow]:
        """Answer a page by the index that serves its filters best, as mongod finds out by trying."""
        by, direction = _SORT_BY_ORDER[query.order]
        with db_call(self._database, writes=False):
            found = self._database.collection("executions").find(
                _list_filter(integrator, query, after), LIST_PROJECTION
            )
            rows = list(found.sort([(by, direction), ("_id", direction)]).limit(limit).batch_size(limit))
        return [ListRow(decode_execution(row), ListPosition(row[by], row["_id"])) for row in rows]

    def compare_revisions(
        self, integrator: str, revs: Mapping[str, int | None], live_max: int, *, causal: bool = False
    ) -> RevisionComparison:
        """Compare revisions as they are read; only what is answered is decoded, for that is what takes long."""
        named = _ids_filter(integrator, revs)
        of_now = self._database.causal_session("executions", named) if causal else nullcontext()
        with db_call(self._database, writes=False), of_now as session:
            found = self._database.collection("executions").find(named, LIST_PROJECTION, session=session)
            by_id = {row["_id"]: row for row in found.batch_size(full_batch_size(revs))}
        rows = [by_id[each] for each in revs if each in by_id]
        changed = [row for row in rows if row["rev"] != revs[row["_id"]]]
        same = [row for row in rows if row["rev"] == revs[row["_id"]]]
        live = islice((row for row in same if not ExecutionStatus(row["status"]).is_final), live_max)
        missing = [each for each in revs if each not in by_id]
        return RevisionComparison(
            [decode_execution(row) for row in changed], [decode_execution(row) for row in live], len(same), missing
        )

    def read_many(self, integrator: str, ids: Collection[str], bytes_max: int) -> Sequence[ExecutionRecord]:
        """Answer executions whole, read a few at a time so that memory holds no more than was asked for."""
        records: list[ExecutionRecord] = []
        left = bytes_max
        with db_call(self._database, writes=False):
            executions = self._database.collection("executions")
            with executions.find(
                _ids_filter(integrator, ids), READER_PROJECTION, batch_size=_CURSOR_BATCH_SIZE
            ) as found:
                for document in found:
                    records.append(_to_record(document))
                    left -= sum(map(len, records[-1].outputs.values()))
                    if left <= 0:
                        break
        return records

    def find_by_idempotency_keys(self, integrator: str, keys: Collection[str]) -> Mapping[str, Execution]:
        """Answer who holds keys, by the index that makes them unique."""
        held = {"integrator": str(integrator), "idempotency.key": {"$in": [str(key) for key in keys]}}
        with db_call(self._database, writes=False):
            found = self._database.collection("executions").find(held, DECISION_PROJECTION)
            documents = list(found.batch_size(full_batch_size(keys)))
        kept_since = self._clock.now() - IDEMPOTENCY_KEY_TTL
        runs = [run for run in map(decode_execution, documents) if run.created_at > kept_since]
        return {run.idempotency.key: run for run in runs if run.idempotency is not None}

    def insert_all(self, decisions: Sequence[Decision]) -> Collection[int]:
        """Store runs by one unordered insert; those whose keys or ids are taken are refused, and others for reasons."""
        documents = [new_document(advance, {}) for advance in decisions]
        with db_call(self._database, timeout_s=self._database.deadline_s + len(documents) * _INSERT_EXTRA_S):
            try:
                self._database.collection("executions").insert_many(documents, ordered=False)
            except BulkWriteError as failed:
                if failed.details.get("writeConcernErrors"):
                    raise
                return {error["index"] for error in failed.details["writeErrors"]}
        return ()

    def create_many(self, decisions: Sequence[Decision]) -> Sequence[Execution | BucketError]:
        """Store runs by one unordered insert; one that is refused is decided by itself."""
        if not decisions:
            return []
        try:
            refused = self.insert_all(decisions)
        except (Unavailable, OutcomeUnknown, NotStorable) as error:
            return [error] * len(decisions)
        decided = self._resolve_refused([decisions[at] for at in sorted(refused)]) if refused else {}
        return [decided.get(advance.execution.id, advance.execution) for advance in decisions]

    def _resolve_refused(self, refused: Sequence[Decision]) -> Mapping[str, Execution | BucketError]:
        """What becomes, by id, of runs whose inserts were refused, and did nothing: the same batch sent twice at once.

        Who holds their keys is asked in one trip. What is left is decided one by one, until the store does not answer:
        hundreds would wait for it one after the other.
        """
        keys = {advance.execution.idempotency.key for advance in refused if advance.execution.idempotency is not None}
        decided: dict[str, Execution | BucketError] = {}
        away: BucketError | None = None
        try:
            held = self.find_by_idempotency_keys(refused[0].execution.integrator, keys)
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


def _ids_filter(integrator: str, ids: Collection[str]) -> _Document:
    return {"_id": {"$in": [str(each) for each in ids]}, "integrator": str(integrator), **_NOT_WITHDRAWN}


def _to_record(document: _Document) -> ExecutionRecord:
    events = tuple(decode_event(element) for element in document.get("events", ()))
    return ExecutionRecord(decode_execution(document), events, document.get("lines", 0), document.get("outputs", {}))


def _list_filter(integrator: str, wanted: ListQuery, after: ListPosition | None) -> _Document:
    """The filter of a page; every value of a caller stands as a plain string or moment, never as an operator."""
    named = {
        "basket_name": wanted.basket,
        "tags": wanted.tag,
        "request_id": wanted.request_id,
        "retry_of": wanted.retry_of,
    }
    chosen: _Document = {"integrator": str(integrator), **_NOT_WITHDRAWN}
    chosen |= {field: str(value) for field, value in named.items() if value is not None}
    if wanted.statuses:
        chosen["status"] = {"$in": [str(status) for status in wanted.statuses]}
    if wanted.tag is not None:
        chosen["tags.0"] = {"$exists": True}  # which the index of tags has been told of
    if wanted.updated_since is not None:
        chosen["updated_at"] = {"$gte": _ceil_to_ms(wanted.updated_since)}
    made: list[_Document] = []
    if wanted.created_after is not None:
        made.append({"created_at": {"$gt": wanted.created_after}})
    if wanted.created_before is not None:
        made.append({"created_at": {"$lt": _ceil_to_ms(wanted.created_before)}})
    if after is not None:
        by, direction = _SORT_BY_ORDER[wanted.order]
        made += _after_position(after, by, "$gt" if direction > 0 else "$lt")
    return chosen | ({"$and": made} if made else {})


def _after_position(after: ListPosition, by: str, further: str) -> list[_Document]:
    """What lies further than a place; the first condition says nothing new, but an index is searched by it."""
    return [
        {by: {f"{further}e": after.at}},
        {"$or": [{by: {further: after.at}}, {by: after.at, "_id": {further: after.id}}]},
    ]


def _ceil_to_ms(at: datetime) -> datetime:
    """``at`` rounded up to the millisecond: the store knows no finer ones, and the driver rounds down."""
    over = timedelta(microseconds=at.microsecond % 1_000)
    return at - over + _MS if over and at < _LATEST_MOMENT else at
