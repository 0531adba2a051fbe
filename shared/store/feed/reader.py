"""The change feed as it is read: from a place on, in commit order, joined with what the executions are by now.

Only batches that a majority has are read, and one number after the other: a batch is never passed over. All reads of
a page share a session, so that the executions are never older than the changes that name them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from shared.domain.feed_position import FeedEnd, FeedPosition, select_page
from shared.domain.status import ExecutionStatus
from shared.errors import CursorInvalid, PositionExpired, Unavailable
from shared.store.database import Database, db_call, full_batch_size

EXECUTIONS_SCANNED_MAX: Final = 1_000
"""How many executions a page with a filter looks at."""
CHANGES_MAX: Final = 5_000
_CURSOR_BATCH_SIZE: Final = 50
_CHANGE_PROJECTION: Final = {"status": 1, "rev": 1, "basket_name": 1, "tags": 1}

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChangedExecution:
    """An execution that has changed, as it stands by now."""

    execution_id: str
    status: ExecutionStatus
    rev: int
    basket_name: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Changes in order; ``next`` is the place behind them, ``end`` the feed's end as it was read with them."""

    changes: tuple[ChangedExecution, ...]
    next_position: FeedPosition
    end: FeedEnd

    @property
    def is_last(self) -> bool:
        """True where the feed holds nothing beyond this page."""
        return self.next_position.batch_number > self.end.batch_number


@dataclass(frozen=True, slots=True)
class FeedQuery:
    """Which changes a page shows, and how many of them."""

    limit: int
    basket_name: str | None = None
    tag: str | None = None

    @property
    def filter(self) -> dict[str, str]:
        """What MongoDB is asked for; all values are strings."""
        asked = {"basket_name": self.basket_name, "tags": self.tag}
        return {name: str(value) for name, value in asked.items() if value is not None}


class FeedReader:
    """The feed's reading side; raises what the store raises, and Unavailable where the feed has not begun."""

    def __init__(
        self, database: Database, looked_at_max: int = EXECUTIONS_SCANNED_MAX, changes_max: int = CHANGES_MAX
    ) -> None:
        """A page never comes from more than ``changes_max`` changes, however few executions they are of."""
        self._database = database
        self._looked_at_max = looked_at_max
        self._changes_max = changes_max

    @property
    def _changes(self) -> Collection[_Document]:
        return self._database.collection("changes")

    def end(self) -> FeedEnd:
        """Answer the feed's last batch."""
        with db_call(self._database, writes=False):
            return self._end(None)

    def require_reached(self, place: FeedPosition) -> FeedEnd:
        """Answer the feed's end; raises CursorInvalid for a place beyond it. One no longer kept was reached once."""
        end = self.end()
        if place.epoch == end.epoch:
            _has_more(place, end)
        return end

    def lags_s(self, positions: Sequence[FeedPosition], now: datetime) -> Sequence[float | None]:
        """Answer for how long the first change beyond each place has been in the feed; None for an expired place."""
        numbers = list({place.batch_number for place in positions})
        with db_call(self._database, writes=False), self._database.session() as session:
            end = self._end(session)
            found = self._changes.find({"_id": {"$in": numbers}, "epoch": end.epoch}, {"at": 1}, session=session)
            written = {batch["_id"]: batch["at"] for batch in found.batch_size(full_batch_size(numbers))}
        return [_lag_s(place, end, written.get(place.batch_number), now) for place in positions]

    def read_page(self, integrator: str, start: FeedPosition | None, query: FeedQuery) -> FeedPage:
        """Answer the changes from ``start`` on (None: from the oldest kept) of one integrator's executions.

        Raises CursorInvalid for a place that the feed has not reached, PlaceExpired for one no longer kept.
        """
        with db_call(self._database, writes=False), self._database.session() as session:
            end = self._end(session)
            start = start or self._oldest(end, session)
            # Those that a filter leaves out make a page short.
            most = max(query.limit, self._looked_at_max) if query.filter else query.limit
            found, places = self._read(start, end, most, session)
            shown = self._join(integrator, set(found), query, session)
        ids, taken = select_page(found, shown, query.limit)
        return FeedPage(tuple(shown[each] for each in ids), places[taken], end)

    def _end(self, session: ClientSession | None) -> FeedEnd:
        last = self._changes.find_one(sort=[("_id", -1)], projection={"changes": 0, "token": 0}, session=session)
        if last is None:
            raise Unavailable("the feed has not begun yet; ask again in a moment")
        return FeedEnd(last["epoch"], last["_id"], last["at"], last["through"])

    def _oldest(self, end: FeedEnd, session: ClientSession) -> FeedPosition:
        oldest = self._changes.find_one({"epoch": end.epoch}, {"since": 1}, sort=[("_id", 1)], session=session)
        return end.position if oldest is None else FeedPosition(end.epoch, oldest["_id"], 0, oldest["since"])

    def _read(
        self, start: FeedPosition, end: FeedEnd, most: int, session: ClientSession
    ) -> tuple[Sequence[str], Sequence[FeedPosition]]:
        """The changes from ``start`` on, one more execution than ``most``, and the place before each and behind all."""
        if not _has_more(start, end):
            return (), (end.position,)
        wanted = {"_id": {"$gte": start.batch_number, "$lte": end.batch_number}}
        batches = self._changes.find(wanted, {"since": 1, "changes": 1}, session=session).sort("_id", 1)
        ids: list[str] = []
        places: list[FeedPosition] = []
        different: set[str] = set()
        number = start.batch_number
        with batches.batch_size(_CURSOR_BATCH_SIZE):
            for batch in batches:
                if batch["_id"] != number:
                    raise PositionExpired
                changes = batch["changes"]
                taken = start.offset if number == start.batch_number else 0
                if taken and taken >= len(changes):
                    raise _unreached_cursor()
                for index in range(taken, len(changes)):
                    place = FeedPosition(end.epoch, number, index, batch["since"])
                    different.add(changes[index])
                    if len(different) > most or len(ids) == self._changes_max:
                        return ids, [*places, place]
                    ids.append(changes[index])
                    places.append(place)
                number += 1
        if number <= end.batch_number:
            raise PositionExpired
        return ids, [*places, end.position]

    def _join(
        self, integrator: str, execution_ids: set[str], wanted: FeedQuery, session: ClientSession
    ) -> dict[str, ChangedExecution]:
        """Those of the executions that are still there and pass the filter, as a majority has them."""
        if not execution_ids:
            return {}
        named = {"_id": {"$in": list(execution_ids)}, "integrator": str(integrator), "status": {"$exists": True}}
        executions = self._database.collection("executions")
        found = executions.find(named | wanted.filter, _CHANGE_PROJECTION, session=session)
        return {each["_id"]: _to_changed_execution(each) for each in found.batch_size(full_batch_size(execution_ids))}


def _has_more(place: FeedPosition, end: FeedEnd) -> bool:
    """True where something may lie beyond ``place``, False where it is the very end; raises what refuses it."""
    if place.epoch != end.epoch:
        raise PositionExpired
    if place.batch_number > end.batch_number + 1 or (place.batch_number > end.batch_number and place.offset):
        raise _unreached_cursor()
    return place.batch_number <= end.batch_number


def _lag_s(place: FeedPosition, end: FeedEnd, written_at: datetime | None, now: datetime) -> float | None:
    if place.epoch == end.epoch and place.batch_number > end.batch_number:
        return 0.0
    if place.epoch != end.epoch or written_at is None:
        return None
    return max((now - written_at).total_seconds(), 0.0)


def _unreached_cursor() -> CursorInvalid:
    return CursorInvalid("the feed has never been where this cursor points; pass a next_since back, or leave it out")


def _to_changed_execution(found: _Document) -> ChangedExecution:
    status = ExecutionStatus(found["status"])
    return ChangedExecution(found["_id"], status, found["rev"], found["basket_name"], tuple(found["tags"]))
