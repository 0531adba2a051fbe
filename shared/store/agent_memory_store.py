"""Agent memory in MongoDB: the last output of an agent in a basket, kept for an hour for its next run there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pymongo.errors import DuplicateKeyError

from shared.store.database import Database, db_call
from shared.store.server_clock import Clock

MEMORY_TTL: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class MemoryKey:
    """The key of a memory: integrator, kind, basket, agent; runs of the agent alone have a key of their own."""

    integrator: str
    kind: str
    basket: str
    agent: str

    @property
    def id(self) -> str:
        """The key as one string; no part of it contains a colon."""
        return f"{self.integrator}:{self.kind}:{self.basket}:{self.agent}"


class MongoAgentMemory:
    """Memories, deleted by a TTL index an hour after they were written; no run's state depends on them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def remember(self, key: MemoryKey, output: bytes, at: datetime) -> None:
        """Store an output that was recorded ``at``, unless a later one is stored already."""
        query = {"_id": key.id, "at": {"$lte": at}}
        expires_at = self._clock.now() + MEMORY_TTL
        fields = {"integrator": key.integrator, "json": output, "at": at, "expires_at": expires_at}
        with suppress(DuplicateKeyError), db_call(self._database):
            self._database.collection("agent_memory").update_one(query, {"$set": fields}, upsert=True)

    def recall(self, key: MemoryKey) -> bytes | None:
        """Return the last output of the last hour, else None; the TTL index is late, so the expiry is checked here."""
        query = {"_id": key.id, "integrator": key.integrator, "expires_at": {"$gt": self._clock.now()}}
        with db_call(self._database, writes=False):
            document = self._database.collection("agent_memory").find_one(query)
        return None if document is None else bytes(document["json"])
