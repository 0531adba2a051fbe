"""The reader of the change feed: pages of changes after a cursor, in commit order, joined with the present executions.

Only batches that a majority has are read, one number after the other: a batch is never skipped. All reads of a page
share a causal session, so that the executions are never older than the changes that name them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from shared.domain.access.caller import Scope
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.feed_position import FeedEnd, FeedPosition, select_page
from shared.domain.status import ExecutionStatus
from shared.errors import Unavailable
from shared.store.database import Database, db_call, full_batch_size
from shared.store.feed.feed_errors import PositionExpired
from shared.store.readable_documents import decode_readable
from shared.store.scope_filter import scope_filter

EXECUTIONS_SCANNED_MAX: Final = 1_000
"""The number of executions that a page with a filter checks."""
CHANGES_MAX: Final = 5_000
BATCHES_COUNTED_MAX: Final = 200
_CURSOR_BATCH_SIZE: Final = 50
_CHANGE_PROJECTION: Final = {"status": 1, "rev": 1, "basket_name": 1, "tags": 1, "reference": 1}

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChangedExecution:
    """An execution that has changed, in its present state."""

    execution_id: str
    status: ExecutionStatus
    rev: int
    basket_name: str
    tags: tuple[str, ...]
    reference: str | None


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Changes in order; ``next_position`` is the position after them, ``end`` the feed's end when they were read."""

    changes: tuple[ChangedExecution, ...]
    next_position: FeedPosition
    end: FeedEnd

    @property
    def is_last(self) -> bool:
        """Whether the feed has nothing after this page."""
        return self.next_position.batch_number > self.end.batch_number


@dataclass(frozen=True, slots=True)
class FeedQuery:
    """The filter of a page of changes, and its size."""

    limit: int
    basket_name: str | None = None
    tag: str | None = None

    @property
    def filter(self) -> dict[str, str]:
        """The MongoDB filter; all values are strings."""
        fields = {"basket_name": self.basket_name, "tags": self.tag}
        return {name: str(value) for name, value in fields.items() if value is not None}


class FeedReader:
    """The reader of the feed; raises what the store raises, and Unavailable if the feed has not begun."""

    def __init__(
        self,
        database: Database,
        executions_scanned_max: int = EXECUTIONS_SCANNED_MAX,
        changes_max: int = CHANGES_MAX,
        batches_counted_max: int = BATCHES_COUNTED_MAX,
    ) -> None:
        """``changes_max`` limits the changes that a page reads, even if they are of only a few executions."""
        self._batches_counted_max = batches_counted_max
        self._database = database
        self._executions_scanned_max = executions_scanned_max
        self._changes_max = changes_max

    @property
    def _changes(self) -> Collection[_Document]:
        return self._database.collection("changes")

    def end(self) -> FeedEnd:
        """Return the end of the feed: its last batch."""
        with db_call(self._database, writes=False):
            return self._end(None)

    def require_reached(self, position: FeedPosition) -> FeedEnd:
        """Return the feed's end; raise PositionExpired for a position after it. One of an earlier epoch is accepted."""
        end = self.end()
        if position.epoch == end.epoch:
            _has_more(position, end)
        return end

    def lags_s(self, positions: Sequence[FeedPosition], now: datetime) -> Sequence[float | None]:
        """Return the lag of each position in seconds: how long the first change after it has been in the feed.

        It is 0.0 at the end of the feed and None for a position that cannot be read from.
        """
        numbers = list({position.batch_number for position in positions})
        with db_call(self._database, writes=False), self._database.session() as session:
            end = self._end(session)
            cursor = self._changes.find({"_id": {"$in": numbers}, "epoch": end.epoch}, {"at": 1}, session=session)
            written_at = {batch["_id"]: batch["at"] for batch in cursor.batch_size(full_batch_size(numbers))}
        return [_lag_s(position, end, written_at.get(position.batch_number), now) for position in positions]

    def changes_behind(self, positions: Sequence[FeedPosition]) -> Sequence[int | None]:
        """Return how many changes of the whole feed are after each position; None if it cannot be read from.

        It is exact within the last :data:`BATCHES_COUNTED_MAX` batches, and an estimate by their mean beyond them.
        """
        with db_call(self._database, writes=False), self._database.session() as session:
            end = self._end(session)
            newest = self._changes.find({}, {"size": {"$size": "$changes"}}, session=session).sort("_id", -1)
            sizes = {batch["_id"]: batch["size"] for batch in newest.limit(self._batches_counted_max)}
        return [_changes_behind(position, end, sizes) for position in positions]

    def read_page(self, scope: Scope, start: FeedPosition | None, query: FeedQuery) -> FeedPage:
        """Return the page of changes from ``start`` on (None: from the oldest stored) of the executions of ``scope``.

        Raises PositionExpired for a position that is no longer stored, and for one that the feed has not reached: it
        was made before the store was restored from an older backup.
        """
        with db_call(self._database, writes=False), self._database.session() as session:
            end = self._end(session)
            start = start or self._oldest(end, session)
            # A filter leaves out some of what is read, so a filtered page reads more than its limit.
            # So does a scope; the default integrator has most often all of the feed.
            is_filtered = bool(query.filter) or scope not in {None, PUBLIC_INTEGRATOR}
            executions_max = max(query.limit, self._executions_scanned_max) if is_filtered else query.limit
            ids, positions = self._read(start, end, executions_max, session)
            executions = self._join(scope, set(ids), query, session)
        shown_ids, count = select_page(ids, executions, query.limit)
        return FeedPage(tuple(executions[each] for each in shown_ids), positions[count], end)

    def _end(self, session: ClientSession | None) -> FeedEnd:
        last = self._changes.find_one(sort=[("_id", -1)], projection={"changes": 0, "token": 0}, session=session)
        if last is None:
            raise Unavailable("the feed has not begun yet; ask again in a moment")
        return FeedEnd(last["epoch"], last["_id"], last["at"], last["through"])

    def _oldest(self, end: FeedEnd, session: ClientSession) -> FeedPosition:
        oldest = self._changes.find_one({"epoch": end.epoch}, {"since": 1}, sort=[("_id", 1)], session=session)
        return end.position if oldest is None else FeedPosition(end.epoch, oldest["_id"], 0, oldest["since"])

    def _read(
        self, start: FeedPosition, end: FeedEnd, executions_max: int, session: ClientSession
    ) -> tuple[Sequence[str], Sequence[FeedPosition]]:
        """Return the changes from ``start`` on, of at most ``executions_max`` executions, and the position before each.

        The last element of the positions is the one after all changes.
        """
        if not _has_more(start, end):
            return (), (end.position,)
        query = {"_id": {"$gte": start.batch_number, "$lte": end.batch_number}}
        batches = self._changes.find(query, {"since": 1, "changes": 1}, session=session).sort("_id", 1)
        ids: list[str] = []
        positions: list[FeedPosition] = []
        different: set[str] = set()
        number = start.batch_number
        with batches.batch_size(_CURSOR_BATCH_SIZE):
            for batch in batches:
                if batch["_id"] != number:
                    raise PositionExpired
                changes = batch["changes"]
                offset = start.offset if number == start.batch_number else 0
                if offset and offset >= len(changes):
                    raise PositionExpired
                for index in range(offset, len(changes)):
                    position = FeedPosition(end.epoch, number, index, batch["since"])
                    different.add(changes[index])
                    if len(different) > executions_max or len(ids) == self._changes_max:
                        return ids, [*positions, position]
                    ids.append(changes[index])
                    positions.append(position)
                number += 1
        if number <= end.batch_number:
            raise PositionExpired
        return ids, [*positions, end.position]

    def _join(
        self, scope: Scope, execution_ids: set[str], query: FeedQuery, session: ClientSession
    ) -> dict[str, ChangedExecution]:
        """Return, by id, the executions that still exist, match and can be read, as a majority has them."""
        if not execution_ids:
            return {}
        ids_filter = {"_id": {"$in": list(execution_ids)}} | scope_filter(scope) | {"status": {"$exists": True}}
        executions = self._database.collection("executions")
        cursor = executions.find(ids_filter | query.filter, _CHANGE_PROJECTION, session=session)
        rows = cursor.batch_size(full_batch_size(execution_ids))
        return {each.execution_id: each for each in decode_readable(rows, _to_changed_execution)}


def _has_more(position: FeedPosition, end: FeedEnd) -> bool:
    """Return whether there may be changes after ``position``; raise PositionExpired if the feed was never there."""
    if position.epoch != end.epoch:
        raise PositionExpired
    if position.batch_number > end.batch_number + 1 or (position.batch_number > end.batch_number and position.offset):
        raise PositionExpired
    return position.batch_number <= end.batch_number


def _lag_s(position: FeedPosition, end: FeedEnd, written_at: datetime | None, now: datetime) -> float | None:
    try:
        if not _has_more(position, end):
            return 0.0
    except PositionExpired:
        return None
    return None if written_at is None else max((now - written_at).total_seconds(), 0.0)


def _changes_behind(position: FeedPosition, end: FeedEnd, sizes: Mapping[int, int]) -> int | None:
    try:
        if not _has_more(position, end):
            return 0
    except PositionExpired:
        return None
    counted = sum(size for number, size in sizes.items() if number >= position.batch_number)
    uncounted = max(min(sizes) - position.batch_number, 0)
    return max(counted + round(uncounted * counted / len(sizes)) - position.offset, 0)


def _to_changed_execution(document: _Document) -> ChangedExecution:
    status = ExecutionStatus(document["status"])
    return ChangedExecution(
        document["_id"],
        status,
        document["rev"],
        document["basket_name"],
        tuple(document["tags"]),
        document.get("reference"),
    )
