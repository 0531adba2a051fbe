"""Baskets in MongoDB, so that every API process sees the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from pymongo.errors import DuplicateKeyError

from shared.errors import BasketExists, BasketNotFound
from shared.store.database import Database, db_call


class MongoBasketStore:
    """Baskets by name, each stored as the JSON bytes of its definition; a deleted name leaves a tombstone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def seed(self, integrator: str, definition: Mapping[str, Any]) -> bool:
        """Insert a basket unless its name has ever been used, also by a deleted one; return whether it was inserted."""
        query = _name_filter(integrator, definition["name"])
        with db_call(self._database):
            result = self._database.collection("baskets").update_one(
                query, {"$setOnInsert": {"definition": orjson.dumps(definition)}}, upsert=True
            )
        return result.upserted_id is not None

    def add(self, integrator: str, definition: Mapping[str, Any], now: datetime) -> None:
        """Insert a basket, also over the tombstone of a deleted one; raise BasketExists if the name is in use."""
        name = definition["name"]
        fields = {"definition": orjson.dumps(definition), "created_at": now}
        query = _name_filter(integrator, name) | {"deleted_at": {"$exists": True}}
        try:
            with db_call(self._database):
                self._database.collection("baskets").update_one(
                    query, {"$set": fields, "$unset": {"deleted_at": ""}}, upsert=True
                )
        except DuplicateKeyError as taken:
            raise BasketExists(f"a basket named {name!r} exists already; choose another name or delete it") from taken

    def get(self, integrator: str, name: str) -> dict[str, Any]:
        """Return a basket; raise BasketNotFound if there is none."""
        with db_call(self._database, writes=False):
            document = self._database.collection("baskets").find_one(_not_deleted(integrator) | {"name": str(name)})
        if document is None:
            raise BasketNotFound(f"basket {name!r} was not found; GET /baskets lists those there are")
        return _definition(document)

    def all(self, integrator: str) -> Sequence[dict[str, Any]]:
        """Return all baskets, sorted by name."""
        with db_call(self._database, writes=False):
            return [
                _definition(document)
                for document in self._database.collection("baskets").find(_not_deleted(integrator)).sort("name", 1)
            ]

    def remove(self, integrator: str, name: str, now: datetime) -> None:
        """Mark a basket as deleted; raise BasketNotFound if there is none."""
        with db_call(self._database):
            result = self._database.collection("baskets").update_one(
                _not_deleted(integrator) | {"name": str(name)}, {"$set": {"deleted_at": now}}
            )
        if result.matched_count == 0:
            raise BasketNotFound(f"basket {name!r} was not found; GET /baskets lists those there are")


def _name_filter(integrator: str, name: str) -> dict[str, Any]:
    return {"integrator": str(integrator), "name": str(name)}


def _not_deleted(integrator: str) -> dict[str, Any]:
    return {"integrator": str(integrator), "deleted_at": None}


def _definition(document: Mapping[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = orjson.loads(document["definition"])
    return definition
