"""API keys in MongoDB: their hashes and records, never the keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from types import UnionType
from typing import Any, Final

import pymongo
import structlog
from pymongo import ReturnDocument, UpdateOne
from pymongo.collection import Collection

from shared.domain.access.api_key import ApiKey
from shared.domain.access.caller import Role
from shared.domain.access.key_format import without_secrets
from shared.errors import KeyNotFound, OutcomeUnknown, Unavailable
from shared.ids import INTEGRATOR_PATTERN
from shared.store.database import Database, db_call

_Document = dict[str, Any]
_TOUCH: Final[_Document] = {"$currentDate": {"changed_at": True}}
"""By the server's clock: the caches of all processes ask for what has changed since they last asked."""


# What decides on rights, and what a list of keys could not show; other fields are texts that are shown as they are.
_KINDS: Final[Mapping[str, type | UnionType]] = {
    "integrator": str,
    "payloads": bool,
    "baskets": list | None,
    "networks": list | None,
    "integration": str | None,
    "created_at": datetime,
    "expires_at": datetime,
    "revoked_at": datetime | None,
}


class MongoKeyStore:
    """API keys by id; raises what the store raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def _keys(self) -> Collection[_Document]:
        return self._database.collection("keys")

    def add(self, key: ApiKey) -> None:
        """Insert a key."""
        with db_call(self._database):
            self._keys.update_one({"_id": key.id}, {"$setOnInsert": _encode(key)} | _TOUCH, upsert=True)

    def find(self, key_id: str) -> ApiKey | None:
        """Return a key; None if there is none, or none that can be read."""
        with db_call(self._database, writes=False):
            document = self._keys.find_one({"_id": str(key_id)})
        return None if document is None else _decode_or_none(document)

    def get(self, key_id: str) -> ApiKey:
        """Return a key; raises KeyNotFound if there is none, or none that can be read."""
        with db_call(self._database, writes=False):
            document = self._keys.find_one({"_id": str(key_id)})
        if document is None:
            raise _not_found(key_id)
        key = _decode_or_none(document)
        if key is None:
            raise KeyNotFound(f"the record of the key {document['_id']} cannot be read, so the key is refused")
        return key

    def find_all(self, key_ids: Sequence[str]) -> Sequence[ApiKey]:
        """Return those of the keys that there are and can be read."""
        with db_call(self._database, writes=False):
            documents = list(self._keys.find({"_id": {"$in": list(key_ids)}}))
        return [key for document in documents if (key := _decode_or_none(document)) is not None]

    def list_page(self, limit: int, after: str | None = None) -> Sequence[ApiKey]:
        """Return at most ``limit`` keys in the order of their ids, beginning after the id ``after``.

        One that cannot be read is left out, as it permits nothing.
        """
        query: _Document = {} if after is None else {"_id": {"$gt": str(after)}}
        with db_call(self._database, writes=False), self._keys.find(query, batch_size=limit).sort("_id", 1) as found:
            readable = (key for document in found if (key := _decode_or_none(document)) is not None)
            return list(islice(readable, limit))

    def has_valid_admin(self, now: datetime) -> bool:
        """Return whether some admin's key is valid; one that cannot be read is not."""
        query = {"role": str(Role.ADMIN), "revoked_at": None, "expires_at": {"$gt": now}}
        with db_call(self._database, writes=False), self._keys.find(query) as found:
            return any(_decode_or_none(document) is not None for document in found)

    def remove_ended(self, created_by: str, now: datetime) -> None:
        """Delete the records of keys that ``created_by`` made and that are no longer valid."""
        ended = {"$or": [{"revoked_at": {"$ne": None}}, {"expires_at": {"$lte": now}}]}
        with db_call(self._database):
            self._keys.delete_many({"created_by": str(created_by)} | ended)

    def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """Revoke a key and return it; one that was revoked before stays as it is. Raises KeyNotFound.

        It is one call: a failure never hides that the key was revoked.
        """
        changes = {"revoked_at": {"$ifNull": ["$revoked_at", now]}, "changed_at": "$$NOW"}
        with db_call(self._database):
            document = self._keys.find_one_and_update(
                {"_id": str(key_id)}, [{"$set": changes}], return_document=ReturnDocument.AFTER
            )
        if document is None:
            raise _not_found(key_id)
        return _decode(document)

    def replace(self, key_id: str, successor: ApiKey, ends_at: datetime) -> ApiKey | None:
        """Store the successor of a rotation and let the old key end at ``ends_at``; return the old key.

        None if the old one is revoked or was replaced already: no key has two successors. The successor is stored
        first: a death in between leaves a key that nobody knows, never an integrator without one. If only the reply is
        lost, the old key is read, because a repeated rotation would be refused.
        """
        self.add(successor)
        document: _Document | None = None
        query = {"_id": str(key_id), "revoked_at": None, "replaced_by": None}
        update = {"$set": {"replaced_by": successor.id}, "$min": {"expires_at": ends_at}} | _TOUCH
        try:
            with db_call(self._database):
                document = self._keys.find_one_and_update(query, update, return_document=ReturnDocument.AFTER)
                if document is None:
                    self._keys.delete_one({"_id": successor.id})
        except OutcomeUnknown:
            with suppress(Unavailable):
                document = self._find_caught_up(key_id)
            if document is None or document["replaced_by"] != successor.id:
                raise
        return None if document is None else _decode(document)

    def _find_caught_up(self, key_id: str) -> _Document | None:
        """Return a record as a majority has it once that has all earlier writes."""
        query = {"_id": str(key_id)}
        with db_call(self._database, writes=False), self._database.read_session(query, causal=True) as session:
            return self._keys.find_one(query, session=session)

    def changed_since(self, moment: datetime) -> Sequence[tuple[str, ApiKey | None, datetime]]:
        """Return what was changed at ``moment`` or later: each id, its key (None if it cannot be read), and when."""
        with db_call(self._database, writes=False):
            documents = list(self._keys.find({"changed_at": {"$gte": moment}}).sort("changed_at", pymongo.ASCENDING))
        return [(document["_id"], _decode_or_none(document), document["changed_at"]) for document in documents]

    def record_uses(self, used_at: Mapping[str, datetime]) -> None:
        """Record when each of these keys was last used."""
        updates = [UpdateOne({"_id": key_id}, {"$max": {"last_used_at": at}}) for key_id, at in used_at.items()]
        with db_call(self._database):
            self._keys.bulk_write(updates, ordered=False)


def _not_found(key_id: str) -> KeyNotFound:
    return KeyNotFound(f"key {without_secrets(key_id)[:64]!r} was not found; GET /keys lists those there are")


def _encode(key: ApiKey) -> _Document:
    return {
        "key_hash": key.key_hash,
        "salt": key.salt,
        "pepper_id": key.pepper_id,
        "name": key.name,
        "owner": key.owner,
        "role": str(key.role),
        "integrator": key.integrator,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "baskets": _list_or_none(key.baskets),
        "networks": _list_or_none(key.networks),
        "payloads": key.payloads,
        "integration": key.integration,
        "revoked_at": key.revoked_at,
        "replaced_by": key.replaced_by,
    }


def _list_or_none(values: Iterable[object] | None) -> list[str] | None:
    return None if values is None else [str(value) for value in values]


def _decode_or_none(document: Mapping[str, Any]) -> ApiKey | None:
    """Return the key; None for one that this version cannot read: it must not hide that others were revoked."""
    try:
        return _decode(document)
    except (KeyError, TypeError, ValueError) as error:
        structlog.get_logger().error("a stored key cannot be read", key_id=document["_id"], reason=repr(error))
        return None


def _decode(document: Mapping[str, Any]) -> ApiKey:
    """Return the key; raises KeyError, TypeError or ValueError: a record that was damaged must not permit more."""
    for name, kind in _KINDS.items():
        if not isinstance(document[name], kind):
            raise TypeError(f"{name} is {document[name]!r}")
    if not isinstance(document.get("last_used_at"), datetime | None):
        raise TypeError("last_used_at is no time")
    if not INTEGRATOR_PATTERN.fullmatch(document["integrator"]):
        raise ValueError(f"integrator is {document['integrator']!r}")
    baskets, networks = document["baskets"], document["networks"]
    return ApiKey(
        id=document["_id"],
        key_hash=bytes(document["key_hash"]),
        salt=bytes(document["salt"]),
        pepper_id=document["pepper_id"],
        name=document["name"],
        owner=document.get("owner", ""),
        role=Role(document["role"]),
        integrator=document["integrator"],
        created_at=document["created_at"],
        created_by=document["created_by"],
        expires_at=document["expires_at"],
        baskets=None if baskets is None else tuple(baskets),
        networks=None if networks is None else tuple(map(ipaddress.ip_network, networks)),
        payloads=document["payloads"],
        integration=document["integration"],
        last_used_at=document.get("last_used_at"),
        revoked_at=document["revoked_at"],
        replaced_by=document["replaced_by"],
    )
