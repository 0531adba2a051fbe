"""The register of integrations in MongoDB; each write is optimistic: it names the version that it is based on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, Final

import orjson
import pymongo
import structlog
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shared.domain.access.integration import (
    Integration,
    IntegrationAction,
    IntegrationDetails,
    IntegrationState,
    IntegrationStatus,
    Move,
    Tick,
)
from shared.errors import IntegrationExists, IntegrationNotFound, StaleWrite
from shared.store.database import Database, db_call
from shared.store.readable_documents import time_of

_Document = dict[str, Any]
_TOUCH: Final[_Document] = {"$currentDate": {"changed_at": True}}
"""By the server's clock: the caches of all processes ask for what has changed since they last asked."""


class MongoIntegrationStore:
    """Integrations by id; raises what the store raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def _integrations(self) -> Collection[_Document]:
        return self._database.collection("integrations")

    def add(self, integration: Integration) -> None:
        """Insert an integration; raises IntegrationExists if its name is in use."""
        fields = _encode(integration) | {"version": integration.version}
        try:
            with db_call(self._database):
                self._integrations.update_one({"_id": integration.id}, {"$setOnInsert": fields} | _TOUCH, upsert=True)
        except DuplicateKeyError as taken:
            raise _name_taken(integration) from taken

    def save(self, integration: Integration) -> Integration:
        """Store what was decided on ``integration.version`` and return it with its new version.

        Raises StaleWrite if somebody wrote first, and IntegrationExists if its new name is in use.
        """
        saved = replace(integration, version=integration.version + 1)
        query = {"_id": str(integration.id), "version": integration.version}
        update = {"$set": _encode(integration) | {"version": saved.version}} | _TOUCH
        try:
            with db_call(self._database):
                matched = self._integrations.update_one(query, update).matched_count
        except DuplicateKeyError as taken:
            raise _name_taken(integration) from taken
        if not matched:
            raise StaleWrite("somebody else has just changed this integration; look at it again")
        return saved

    def find(self, integration_id: str) -> Integration | None:
        """Return an integration; None if there is none, or none that can be read."""
        with db_call(self._database, writes=False):
            document = self._integrations.find_one({"_id": str(integration_id)})
        return None if document is None else _decode_or_none(document)

    def get(self, integration_id: str) -> Integration:
        """Return an integration; raises IntegrationNotFound if there is none, or none that can be read."""
        integration = self.find(integration_id)
        if integration is None:
            raise IntegrationNotFound(
                f"integration {integration_id[:64]!r} was not found, or its record cannot be read; GET /integrations "
                "lists those there are"
            )
        return integration

    def list_page(
        self, limit: int, after: str | None = None, statuses: Sequence[IntegrationStatus] = ()
    ) -> Sequence[Integration]:
        """Return at most ``limit`` integrations sorted by name, beginning after the name ``after``.

        One that cannot be read is left out, as its keys may not submit.
        """
        query: _Document = {} if after is None else {"name": {"$gt": str(after)}}
        if statuses:
            query["status"] = {"$in": [str(status) for status in statuses]}
        found = self._integrations.find(query, batch_size=limit).sort("name", 1)
        with db_call(self._database, writes=False), found:
            readable = (each for document in found if (each := _decode_or_none(document)) is not None)
            return list(islice(readable, limit))

    def states_changed_since(self, moment: datetime) -> Sequence[tuple[str, IntegrationState | None, datetime]]:
        """Return the id of each integration that was changed at ``moment`` or later, its state, and when.

        The state is None for one that cannot be read.
        """
        query = {"changed_at": {"$gte": moment}}
        with db_call(self._database, writes=False):
            found = list(self._integrations.find(query).sort("changed_at", pymongo.ASCENDING))
        return [(document["_id"], _decode_state(document), document["changed_at"]) for document in found]

    def find_states(self, integration_ids: Sequence[str]) -> Sequence[IntegrationState]:
        """Return the state of each of the integrations that there are and can be read."""
        query = {"_id": {"$in": [str(integration_id) for integration_id in integration_ids]}}
        with db_call(self._database, writes=False):
            found = list(self._integrations.find(query))
        return [state for document in found if (state := _decode_state(document)) is not None]


def _decode_or_none(document: Mapping[str, Any]) -> Integration | None:
    """Return the integration; None for one that this version cannot read: it must not hide that others were suspended.

    One that cannot be read cannot be suspended either, so it must not count as active.
    """
    try:
        return _decode(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        structlog.get_logger().error(
            "an integration cannot be read", integration=str(document["_id"]), reason=repr(error)
        )
        return None


def _decode_state(document: Mapping[str, Any]) -> IntegrationState | None:
    integration = _decode_or_none(document)
    return None if integration is None else integration.state


def _name_taken(integration: Integration) -> IntegrationExists:
    return IntegrationExists(f"an integration named {integration.details.name!r} exists already; choose another name")


def _encode(integration: Integration) -> _Document:
    details = integration.details
    return {
        "name": details.name,
        "use_case": details.use_case,
        "data_flow": details.data_flow,
        "contact": details.contact,
        "volume": details.volume,
        "agents": list(details.agents),
        "baskets": list(details.baskets),
        "mapping_url": details.mapping_url,
        "status": str(integration.status),
        "updated_at": integration.updated_at,
        "ticks": {name: {"done": tick.done, "by": tick.by, "at": tick.at} for name, tick in integration.ticks.items()},
        "history": [
            {
                "action": str(move.action),
                "before": None if move.before is None else str(move.before),
                "after": str(move.after),
                "by": move.by,
                "at": move.at,
                "comment": move.comment,
            }
            for move in integration.history
        ],
        "key_id": integration.key_id,
        "pending_key_id": integration.pending_key_id,
    }


def _decode(document: Mapping[str, Any]) -> Integration:
    if not isinstance(document["name"], str):
        raise TypeError("its name is no text")
    return Integration(
        id=document["_id"],
        details=IntegrationDetails(
            name=document["name"],
            use_case=document["use_case"],
            data_flow=document["data_flow"],
            contact=document["contact"],
            volume=_json_of(document["volume"]),
            agents=tuple(document["agents"]),
            baskets=tuple(document["baskets"]),
            mapping_url=document["mapping_url"],
        ),
        status=IntegrationStatus(document["status"]),
        updated_at=time_of(document, "updated_at"),
        history=tuple(map(_decode_move, document["history"])),
        ticks={name: Tick(tick["done"], tick["by"], time_of(tick, "at")) for name, tick in document["ticks"].items()},
        key_id=document["key_id"],
        pending_key_id=document["pending_key_id"],
        version=document["version"],
    )


def _decode_move(move: Mapping[str, Any]) -> Move:
    return Move(
        IntegrationAction(move["action"]),
        None if move["before"] is None else IntegrationStatus(move["before"]),
        IntegrationStatus(move["after"]),
        move["by"],
        time_of(move, "at"),
        move["comment"],
    )


def _json_of(stored: Any) -> bytes:
    """Return JSON as it is stored; raises TypeError or ValueError if it is none."""
    if not isinstance(stored, bytes):
        raise TypeError(f"{type(stored).__name__} is no JSON")
    orjson.loads(stored)
    return stored
