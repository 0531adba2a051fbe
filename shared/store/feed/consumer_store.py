"""Consumers: named readers of the feed, whose place Bucket keeps for them; acknowledging moves it, and only forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shared.domain.feed_position import End, Place
from shared.errors import ConsumerNotFound, ValidationFailed
from shared.store.database import Database, call
from shared.store.server_clock import Clock

CONSUMERS_MAX: Final = 1_000

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Consumer:
    """One named reader; ``acked_at`` is None until it has acknowledged anything."""

    name: str
    place: Place
    created_at: datetime
    acked_at: datetime | None = None


class MongoConsumers:
    """Consumers in MongoDB, by integrator and name; raises what the store raises."""

    def __init__(self, database: Database, clock: Clock, most: int = CONSUMERS_MAX) -> None:
        """``most`` is how many an integrator may have."""
        self._database = database
        self._clock = clock
        self._most = most

    @property
    def _consumers(self) -> Collection[_Document]:
        return self._database.collection("consumers")

    def all(self, integrator: str) -> Sequence[Consumer]:
        """Answer all consumers by name."""
        with call(self._database, writes=False):
            found = self._consumers.find({"integrator": str(integrator)}).limit(self._most)
            return sorted((_consumer(each) for each in found), key=lambda consumer: consumer.name)

    def get(self, integrator: str, name: str) -> Consumer:
        """Answer a consumer; raises ConsumerNotFound."""
        with call(self._database, writes=False):
            found = self._consumers.find_one(_named(integrator, name))
        if found is None:
            raise _absent(name)
        return _consumer(found)

    def add(self, integrator: str, name: str, place: Place) -> tuple[Consumer, bool]:
        """Answer the consumer of this name and whether it is new; a known one stays where it is."""
        consumer = Consumer(name, place, self._clock.now())
        document = _named(integrator, name) | {"integrator": str(integrator), "name": name, **_at(place)}
        try:
            with call(self._database):
                if self._consumers.count_documents({"integrator": str(integrator)}) >= self._most:
                    raise ValidationFailed(f"there are {self._most} consumers already; delete what nobody uses")
                self._consumers.insert_one(document | {"created_at": consumer.created_at})
        except DuplicateKeyError:
            return self.get(integrator, name), False
        return consumer, True

    def ack(self, integrator: str, name: str, place: Place, end: End) -> Consumer:
        """Move a consumer to ``place`` where that is forward; answer where it stands. Raises ConsumerNotFound.

        Within one epoch the further place wins; the feed's present epoch (of ``end``) wins over any that is over.
        """
        further: list[_Document] = [
            {"epoch": place.epoch, "number": {"$lt": place.number}},
            {"epoch": place.epoch, "number": place.number, "taken": {"$lt": place.taken}},
        ]
        if place.epoch == end.epoch:
            further.append({"epoch": {"$ne": place.epoch}})
        moved = {"$set": _at(place) | {"acked_at": self._clock.now()}}
        named = _named(integrator, name)
        with call(self._database):
            found = self._consumers.find_one_and_update(
                named | {"$or": further}, moved, return_document=ReturnDocument.AFTER
            )
        return self.get(integrator, name) if found is None else _consumer(found)

    def remove(self, integrator: str, name: str) -> None:
        """Forget a consumer; raises ConsumerNotFound."""
        with call(self._database):
            if not self._consumers.delete_one(_named(integrator, name)).deleted_count:
                raise _absent(name)


def _named(integrator: str, name: str) -> _Document:
    return {"_id": f"{integrator}/{name}"}


def _at(place: Place) -> _Document:
    return {"epoch": place.epoch, "number": place.number, "taken": place.taken, "as_of": place.as_of}


def _consumer(found: _Document) -> Consumer:
    place = Place(found["epoch"], found["number"], found["taken"], found["as_of"])
    return Consumer(found["name"], place, found["created_at"], found.get("acked_at"))


def _absent(name: str) -> ConsumerNotFound:
    return ConsumerNotFound(f"consumer {name!r} was not found; PUT /consumers/{name} makes it")
