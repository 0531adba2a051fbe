"""Consumers in MongoDB: named readers of the feed, whose cursor Bucket keeps; acknowledging moves it only forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shared.domain.access.caller import Scope
from shared.domain.feed_position import FeedEnd, FeedPosition
from shared.errors import ConsumerNotFound, ValidationFailed
from shared.store.database import Database, db_call
from shared.store.scope_filter import scope_filter
from shared.store.server_clock import Clock

CONSUMERS_MAX: Final = 1_000

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FeedConsumer:
    """One named reader of the feed; ``acked_at`` is None until its first acknowledgement."""

    integrator: str
    name: str
    position: FeedPosition
    created_at: datetime
    acked_at: datetime | None = None


class MongoConsumerStore:
    """Consumers in MongoDB, by integrator and name; raises what the store raises."""

    def __init__(self, database: Database, clock: Clock, consumers_max: int = CONSUMERS_MAX) -> None:
        """``consumers_max`` is the limit for each integrator."""
        self._database = database
        self._clock = clock
        self._consumers_max = consumers_max

    @property
    def _consumers(self) -> Collection[_Document]:
        return self._database.collection("consumers")

    def all(self, scope: Scope) -> Sequence[FeedConsumer]:
        """Return the consumers of ``scope``, sorted by name."""
        limit = 0 if scope is None else self._consumers_max  # 0: none, for what is left out is watched by nobody
        with db_call(self._database, writes=False):
            cursor = self._consumers.find(scope_filter(scope)).limit(limit)
            return sorted(
                (_consumer(each) for each in cursor), key=lambda consumer: (consumer.name, consumer.integrator)
            )

    def get(self, integrator: str, name: str) -> FeedConsumer:
        """Return a consumer; raise ConsumerNotFound if there is none."""
        with db_call(self._database, writes=False):
            document = self._consumers.find_one(_id_filter(integrator, name))
        if document is None:
            raise _not_found(name)
        return _consumer(document)

    def add(self, integrator: str, name: str, position: FeedPosition) -> tuple[FeedConsumer, bool]:
        """Create a consumer; return it and whether it is new. An existing one keeps its position."""
        consumer = FeedConsumer(integrator, name, position, self._clock.now())
        names = _id_filter(integrator, name) | {"integrator": str(integrator), "name": name}
        document = names | _position_fields(position) | {"created_at": consumer.created_at}
        try:
            with db_call(self._database):
                if self._consumers.count_documents({"integrator": str(integrator)}) >= self._consumers_max:
                    raise ValidationFailed(
                        f"there are {self._consumers_max} consumers already; delete what nobody uses"
                    )
                self._consumers.insert_one(document)
        except DuplicateKeyError:
            return self.get(integrator, name), False
        return consumer, True

    def ack(self, integrator: str, name: str, position: FeedPosition, end: FeedEnd) -> FeedConsumer:
        """Move a consumer to ``position`` if that is forward; return the consumer after it. Raises ConsumerNotFound.

        Within one epoch the further position wins; the feed's present epoch (of ``end``) wins over any earlier one, and
        any position over one that the feed has not reached.
        """
        behind: list[_Document] = [
            {"epoch": position.epoch, "number": {"$lt": position.batch_number}},
            {"epoch": position.epoch, "number": position.batch_number, "taken": {"$lt": position.offset}},
        ]
        if position.epoch == end.epoch:
            behind.append({"epoch": {"$ne": position.epoch}})
            # A store that was restored in part: the feed was never at the consumer's position.
            behind.append({"number": {"$gt": end.batch_number + 1}})
        update = {"$set": _position_fields(position) | {"acked_at": self._clock.now()}}
        query = _id_filter(integrator, name) | {"$or": behind}
        with db_call(self._database):
            document = self._consumers.find_one_and_update(query, update, return_document=ReturnDocument.AFTER)
        return self.get(integrator, name) if document is None else _consumer(document)

    def remove(self, integrator: str, name: str) -> None:
        """Delete a consumer; raise ConsumerNotFound if there is none."""
        with db_call(self._database):
            if not self._consumers.delete_one(_id_filter(integrator, name)).deleted_count:
                raise _not_found(name)


def _id_filter(integrator: str, name: str) -> _Document:
    return {"_id": f"{integrator}/{name}"}


def _position_fields(position: FeedPosition) -> _Document:
    return {"epoch": position.epoch, "number": position.batch_number, "taken": position.offset, "as_of": position.as_of}


def _consumer(document: _Document) -> FeedConsumer:
    position = FeedPosition(document["epoch"], document["number"], document["taken"], document["as_of"])
    return FeedConsumer(
        document["integrator"], document["name"], position, document["created_at"], document.get("acked_at")
    )


def _not_found(name: str) -> ConsumerNotFound:
    return ConsumerNotFound(f"consumer {name!r} was not found; PUT /consumers/{name} makes it")
