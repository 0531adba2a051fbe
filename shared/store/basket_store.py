"""Baskets in MongoDB, so that every API process sees the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shared.errors import BasketExists, BasketNotFound
from shared.store.database import Database, db_call
from shared.suggestions import closest_matches

_NEIGHBOURS_COMPARED_MAX: Final = 100
"""Names before and after a missing one in the alphabet; one comparison of similar names costs up to 0.1 ms of CPU."""


class MongoBasketStore:
    """Baskets by name, each stored as the JSON bytes of its definition; a deleted name leaves a tombstone."""

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
        """Insert a basket, also over the tombstone of a deleted one; raise BasketExists if the name is in use."""
        name = definition["name"]
        query = _name_filter(integrator, name) | {"deleted_at": {"$exists": True}}
        fields = {"definition": orjson.dumps(definition), "created_at": now}
        try:
            with db_call(self._database):
                self._baskets.update_one(query, {"$set": fields, "$unset": {"deleted_at": ""}}, upsert=True)
        except DuplicateKeyError as taken:
            raise BasketExists(f"a basket named {name!r} exists already; choose another name or delete it") from taken

    def get(self, integrator: str, name: str) -> dict[str, Any]:
        """Return a basket; raise BasketNotFound if there is none."""
        with db_call(self._database, writes=False):
            document = self._baskets.find_one(_name_filter(integrator, name) | {"deleted_at": None})
        if document is None:
            raise self._not_found(integrator, name)
        return _definition(document)

    def all(self, integrator: str) -> Sequence[dict[str, Any]]:
        """Return all baskets, sorted by name."""
        with db_call(self._database, writes=False):
            baskets = self._baskets.find({"integrator": str(integrator), "deleted_at": None}).sort("name", 1)
            return [_definition(document) for document in baskets]

    def remove(self, integrator: str, name: str, now: datetime) -> None:
        """Mark a basket as deleted; raise BasketNotFound if there is none."""
        query = _name_filter(integrator, name) | {"deleted_at": None}
        with db_call(self._database):
            deleted = self._baskets.update_one(query, {"$set": {"deleted_at": now}}).matched_count
        if not deleted:
            raise self._not_found(integrator, name)

    def _not_found(self, integrator: str, name: str) -> BasketNotFound:
        """Return the error, with the existing name that is the nearest."""
        query = {"integrator": str(integrator), "deleted_at": None}
        names: list[str] = []
        with db_call(self._database, writes=False):
            for operator, direction in (("$gte", 1), ("$lt", -1)):
                found = self._baskets.find(query | {"name": {operator: str(name)}}, {"name": 1}).sort("name", direction)
                names += [document["name"] for document in found.limit(_NEIGHBOURS_COMPARED_MAX)]
        nearest = closest_matches(name, names)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "GET /baskets lists those there are"
        return BasketNotFound(f"basket {name!r} was not found; {hint}")


def _name_filter(integrator: str, name: str) -> dict[str, Any]:
    return {"integrator": str(integrator), "name": str(name)}


def _definition(document: Mapping[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = orjson.loads(document["definition"])
    return definition
