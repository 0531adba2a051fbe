"""Baskets in MongoDB, so that every API process sees the same ones: shared ones, and those of one integrator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shared.domain.access.caller import Scope
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.errors import BasketExists, BasketNotFound
from shared.store.database import Database, db_call
from shared.suggestions import closest_matches

_NEIGHBOURS_COMPARED_MAX: Final = 100
"""Names before and after a missing one in the alphabet; one comparison of similar names costs up to 0.1 ms of CPU."""


@dataclass(frozen=True, slots=True)
class StoredBasket:
    """A basket's definition, and the integrator it belongs to; those of the default integrator are shared."""

    integrator: str
    definition: dict[str, Any]

    @property
    def is_shared(self) -> bool:
        """Whether every integrator can run it."""
        return self.integrator == PUBLIC_INTEGRATOR


class MongoBasketStore:
    """Baskets by integrator and name, stored as JSON bytes of their definitions; a deleted one leaves a tombstone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def _baskets(self) -> Collection[dict[str, Any]]:
        return self._database.collection("baskets")

    def seed(self, integrator: str, definition: Mapping[str, Any]) -> bool:
        """Insert a basket unless its name has ever been used, also by a deleted one; return whether it was inserted."""
        query = _name_filter(integrator, definition["name"])
        update = {"$setOnInsert": {"definition": orjson.dumps(definition)}}
        with db_call(self._database):
            return self._baskets.update_one(query, update, upsert=True).upserted_id is not None

    def add(self, integrator: str, definition: Mapping[str, Any], now: datetime) -> None:
        """Insert a basket, also over the tombstone of a deleted one.

        Raises BasketExists if the integrator has one of that name, or all share one.
        """
        name = definition["name"]
        taken_by_shared = BasketExists(f"a basket named {name!r} exists already; choose another name or delete it")
        if integrator != PUBLIC_INTEGRATOR and self._find([PUBLIC_INTEGRATOR], name):
            raise taken_by_shared
        query = _name_filter(integrator, name) | {"deleted_at": {"$exists": True}}
        fields = {"definition": orjson.dumps(definition), "created_at": now}
        try:
            with db_call(self._database):
                self._baskets.update_one(query, {"$set": fields, "$unset": {"deleted_at": ""}}, upsert=True)
        except DuplicateKeyError as taken:
            raise taken_by_shared from taken

    def get(self, integrator: str, name: str) -> StoredBasket:
        """Return an integrator's own basket of a name, else the shared one; raise BasketNotFound if there is none."""
        by_integrator = {basket.integrator: basket for basket in self._find(_visible_to(integrator), name)}
        found = by_integrator.get(integrator) or by_integrator.get(PUBLIC_INTEGRATOR)
        if found is None:
            raise self._not_found(_visible_to(integrator), name)
        return found

    def all(self, scope: Scope) -> Sequence[StoredBasket]:
        """Return the baskets that ``scope`` can run, sorted by name; every basket for None.

        A shared one is left out if the integrator has its own of that name, as a run would not take it.
        """
        owners = {} if scope is None else {"integrator": {"$in": _visible_to(scope)}}
        with db_call(self._database, writes=False):
            found = self._baskets.find(owners | {"deleted_at": None}).sort([("name", 1), ("integrator", 1)])
            baskets = [_stored_basket(document) for document in found]
        own = {basket.definition["name"] for basket in baskets if not basket.is_shared and scope is not None}
        return [basket for basket in baskets if not (basket.is_shared and basket.definition["name"] in own)]

    def remove(self, integrator: str, name: str, now: datetime) -> None:
        """Mark an integrator's own basket as deleted; raise BasketNotFound if there is none."""
        query = _name_filter(integrator, name) | {"deleted_at": None}
        with db_call(self._database):
            deleted = self._baskets.update_one(query, {"$set": {"deleted_at": now}}).matched_count
        if not deleted:
            raise self._not_found(_visible_to(integrator), name)

    def _find(self, integrators: Sequence[str], name: str) -> Sequence[StoredBasket]:
        query = {"integrator": {"$in": integrators}, "name": str(name), "deleted_at": None}
        with db_call(self._database, writes=False):
            return [_stored_basket(document) for document in self._baskets.find(query)]

    def _not_found(self, integrators: Sequence[str], name: str) -> BasketNotFound:
        """Return the error, with the nearest name among the baskets of ``integrators``."""
        query = {"integrator": {"$in": integrators}, "deleted_at": None}
        names: list[str] = []
        with db_call(self._database, writes=False):
            for operator, direction in (("$gte", 1), ("$lt", -1)):
                found = self._baskets.find(query | {"name": {operator: str(name)}}, {"name": 1}).sort("name", direction)
                names += [document["name"] for document in found.limit(_NEIGHBOURS_COMPARED_MAX)]
        nearest = closest_matches(name, names)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "GET /baskets lists those there are"
        return BasketNotFound(f"basket {name!r} was not found; {hint}")


def _visible_to(integrator: str) -> list[str]:
    """Return the owners of the baskets that an integrator can run: itself, and the one of the shared baskets."""
    return [PUBLIC_INTEGRATOR] if integrator == PUBLIC_INTEGRATOR else [integrator, PUBLIC_INTEGRATOR]


def _name_filter(integrator: str, name: str) -> dict[str, Any]:
    return {"integrator": str(integrator), "name": str(name)}


def _stored_basket(document: Mapping[str, Any]) -> StoredBasket:
    return StoredBasket(document["integrator"], orjson.loads(document["definition"]))
