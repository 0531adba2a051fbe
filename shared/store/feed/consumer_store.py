"""Consumers: named readers of the feed, whose place Bucket keeps for them; acknowledging moves it, and only forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shared.domain.feed_position import FeedEnd, FeedPosition
from shared.errors import ConsumerNotFound, ValidationFailed
from shared.store.database import Database, db_call
from shared.store.server_clock import Clock

CONSUMERS_MAX: Final = 1_000

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FeedConsumer:
    """One named reader; ``acked_at`` is None until it has acknowledged anything."""

    name: str
    position: FeedPosition
    created_at: datetime
    acked_at: datetime | None = None


class MongoConsumerStore:
    """Consumers in MongoDB, by integrator and name; raises what the store raises."""

    def __init__(self, database: Database, clock: Clock, consumers_max: int = CONSUMERS_MAX) -> None:
        """``most`` is how many an integrator may have."""
        self._database = database
        self._clock = clock
        self._most = consumers_max

    @property
    def _consumers(self) -> Collection[_Document]:
        return self._database.collection("consumers")

    def all(self, integrator: str) -> Sequence[FeedConsumer]:
        """Answer all consumers by name."""
        with db_call(self._database, writes=False):
            found = self._consumers.find({"integrator": str(integrator)}).limit(self._most)
            return sorted((_consumer(each) for each in found), key=lambda consumer: consumer.name)

    def get(self, integrator: str, name: str) -> FeedConsumer:
        """Answer a consumer; raises ConsumerNotFound."""
        with db_call(self._database, writes=False):
            found = self._consumers.find_one(_id_filter(integrator, name))
        if found is None:
            raise _not_found(name)
        return _consumer(found)

    def add(self, integrator: str, name: str, place: FeedPosition) -> tuple[FeedConsumer, bool]:
        """Answer the consumer of this name and whether it is new; a known one stays where it is."""
        consumer = FeedConsumer(name, place, self._clock.now())
        document = _id_filter(integrator, name) | {
            "integrator": str(integrator),
            "name": name,
            **_position_fields(place),
        }
        try:
            with db_call(self._database):
                if self._consumers.count_documents({"integrator": str(integrator)}) >= self._most:
                    raise ValidationFailed(f"there are {self._most} consumers already; delete what nobody uses")
                self._consumers.insert_one(document | {"created_at": consumer.created_at})
        except DuplicateKeyError:
            return self.get(integrator, name), False
        return consumer, True

    def ack(self, integrator: str, name: str, place: FeedPosition, end: FeedEnd) -> FeedConsumer:
        """Move a consumer to ``place`` where that is forward; answer where it stands. Raises ConsumerNotFound.

        Within one epoch the further place wins; the feed's present epoch (of ``end``) wins over any that is over.
        """
        further: list[_Document] = [
            {"epoch": place.epoch, "number": {"$lt": place.batch_number}},
            {"epoch": place.epoch, "number": place.batch_number, "taken": {"$lt": place.offset}},
        ]
        if place.epoch == end.epoch:
            further.append({"epoch": {"$ne": place.epoch}})
        moved = {"$set": _position_fields(place) | {"acked_at": self._clock.now()}}
        named = _id_filter(integrator, name)
        with db_call(self._database):
            found = self._consumers.find_one_and_update(
                named | {"$or": further}, moved, return_document=ReturnDocument.AFTER
            )
        return self.get(integrator, name) if found is None else _consumer(found)

    def remove(self, integrator: str, name: str) -> None:
        """Forget a consumer; raises ConsumerNotFound."""
        with db_call(self._database):
            if not self._consumers.delete_one(_id_filter(integrator, name)).deleted_count:
                raise _not_found(name)


def _id_filter(integrator: str, name: str) -> _Document:
    return {"_id": f"{integrator}/{name}"}


def _position_fields(place: FeedPosition) -> _Document:
    return {"epoch": place.epoch, "number": place.batch_number, "taken": place.offset, "as_of": place.as_of}


def _consumer(found: _Document) -> FeedConsumer:
    place = FeedPosition(found["epoch"], found["number"], found["taken"], found["as_of"])
    return FeedConsumer(found["name"], place, found["created_at"], found.get("acked_at"))


def _not_found(name: str) -> ConsumerNotFound:
    return ConsumerNotFound(f"consumer {name!r} was not found; PUT /consumers/{name} makes it")
