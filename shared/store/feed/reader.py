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

from shared.domain.feed_position import End, Place, cut
from shared.domain.status import ExecutionStatus
from shared.errors import CursorInvalid, PlaceExpired, Unavailable
from shared.store.database import Database, at_once, call

LOOKED_AT_MAX: Final = 1_000
"""How many executions a page with a filter looks at."""
CHANGES_MAX: Final = 5_000
_BATCHES_A_REPLY: Final = 50
_SHOWN: Final = {"status": 1, "rev": 1, "basket_name": 1, "tags": 1}

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Changed:
    """An execution that has changed, as it stands by now."""

    execution_id: str
    status: ExecutionStatus
    rev: int
    basket_name: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Changes in order; ``next`` is the place behind them, ``end`` the feed's end as it was read with them."""

    changes: tuple[Changed, ...]
    next: Place
    end: End

    @property
    def is_last(self) -> bool:
        """True where the feed holds nothing beyond this page."""
        return self.next.number > self.end.number


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes a page shows, and how many of them."""

    limit: int
    basket_name: str | None = None
    tag: str | None = None

    @property
    def filter(self) -> dict[str, str]:
        """What MongoDB is asked for; all values are strings."""
        asked = {"basket_name": self.basket_name, "tags": self.tag}
        return {name: str(value) for name, value in asked.items() if value is not None}


class MongoFeed:
    """The feed's reading side; raises what the store raises, and Unavailable where the feed has not begun."""

    def __init__(self, database: Database, looked_at_max: int = LOOKED_AT_MAX, changes_max: int = CHANGES_MAX) -> None:
        """A page never comes from more than ``changes_max`` changes, however few executions they are of."""
        self._database = database
        self._looked_at_max = looked_at_max
        self._changes_max = changes_max

    @property
    def _changes(self) -> Collection[_Document]:
        return self._database.collection("changes")

    def end(self) -> End:
        """Answer the feed's last batch."""
        with call(self._database, writes=False):
            return self._end(None)

    def reached(self, place: Place) -> End:
        """Answer the feed's end; raises CursorInvalid for a place beyond it. One no longer kept was reached once."""
        end = self.end()
        if place.epoch == end.epoch:
            _is_within(place, end)
        return end

    def waiting_s(self, places: Sequence[Place], now: datetime) -> Sequence[float | None]:
        """Answer for how long the first change beyond each place has been in the feed; None for an expired place."""
        numbers = list({place.number for place in places})
        with call(self._database, writes=False), self._database.session() as session:
            end = self._end(session)
            found = self._changes.find({"_id": {"$in": numbers}, "epoch": end.epoch}, {"at": 1}, session=session)
            written = {batch["_id"]: batch["at"] for batch in found.batch_size(at_once(numbers))}
        return [_waiting_s(place, end, written.get(place.number), now) for place in places]

    def page(self, integrator: str, start: Place | None, wanted: Wanted) -> FeedPage:
        """Answer the changes from ``start`` on (None: from the oldest kept) of one integrator's executions.

        Raises CursorInvalid for a place that the feed has not reached, PlaceExpired for one no longer kept.
        """
        with call(self._database, writes=False), self._database.session() as session:
            end = self._end(session)
            start = start or self._oldest(end, session)
            # Those that a filter leaves out make a page short.
            most = max(wanted.limit, self._looked_at_max) if wanted.filter else wanted.limit
            found, places = self._read(start, end, most, session)
            shown = self._join(integrator, set(found), wanted, session)
        ids, taken = cut(found, shown, wanted.limit)
        return FeedPage(tuple(shown[each] for each in ids), places[taken], end)

    def _end(self, session: ClientSession | None) -> End:
        last = self._changes.find_one(sort=[("_id", -1)], projection={"changes": 0, "token": 0}, session=session)
        if last is None:
            raise Unavailable("the feed has not begun yet; ask again in a moment")
        return End(last["epoch"], last["_id"], last["at"], last["through"])

    def _oldest(self, end: End, session: ClientSession) -> Place:
        oldest = self._changes.find_one({"epoch": end.epoch}, {"since": 1}, sort=[("_id", 1)], session=session)
        return end.place if oldest is None else Place(end.epoch, oldest["_id"], 0, oldest["since"])

    def _read(self, start: Place, end: End, most: int, session: ClientSession) -> tuple[Sequence[str], Sequence[Place]]:
        """The changes from ``start`` on, one more execution than ``most``, and the place before each and behind all."""
        if not _is_within(start, end):
            return (), (end.place,)
        wanted = {"_id": {"$gte": start.number, "$lte": end.number}}
        batches = self._changes.find(wanted, {"since": 1, "changes": 1}, session=session).sort("_id", 1)
        ids: list[str] = []
        places: list[Place] = []
        different: set[str] = set()
        number = start.number
        with batches.batch_size(_BATCHES_A_REPLY):
            for batch in batches:
                if batch["_id"] != number:
                    raise PlaceExpired
                changes = batch["changes"]
                taken = start.taken if number == start.number else 0
                if taken and taken >= len(changes):
                    raise _unknown()
                for index in range(taken, len(changes)):
                    place = Place(end.epoch, number, index, batch["since"])
                    different.add(changes[index])
                    if len(different) > most or len(ids) == self._changes_max:
                        return ids, [*places, place]
                    ids.append(changes[index])
                    places.append(place)
                number += 1
        if number <= end.number:
            raise PlaceExpired
        return ids, [*places, end.place]

    def _join(
        self, integrator: str, execution_ids: set[str], wanted: Wanted, session: ClientSession
    ) -> dict[str, Changed]:
        """Those of the executions that are still there and pass the filter, as a majority has them."""
        if not execution_ids:
            return {}
        named = {"_id": {"$in": list(execution_ids)}, "integrator": str(integrator), "status": {"$exists": True}}
        executions = self._database.collection("executions")
        found = executions.find(named | wanted.filter, _SHOWN, session=session)
        return {each["_id"]: _changed(each) for each in found.batch_size(at_once(execution_ids))}


def _is_within(place: Place, end: End) -> bool:
    """True where something may lie beyond ``place``, False where it is the very end; raises what refuses it."""
    if place.epoch != end.epoch:
        raise PlaceExpired
    if place.number > end.number + 1 or (place.number > end.number and place.taken):
        raise _unknown()
    return place.number <= end.number


def _waiting_s(place: Place, end: End, written_at: datetime | None, now: datetime) -> float | None:
    if place.epoch == end.epoch and place.number > end.number:
        return 0.0
    if place.epoch != end.epoch or written_at is None:
        return None
    return max((now - written_at).total_seconds(), 0.0)


def _unknown() -> CursorInvalid:
    return CursorInvalid("the feed has never been where this cursor points; pass a next_since back, or leave it out")


def _changed(found: _Document) -> Changed:
    status = ExecutionStatus(found["status"])
    return Changed(found["_id"], status, found["rev"], found["basket_name"], tuple(found["tags"]))
