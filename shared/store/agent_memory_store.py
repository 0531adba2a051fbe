"""What an agent returned last in a basket, kept an hour for its next run there; secondary, and never a run's truth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pymongo.errors import DuplicateKeyError

from shared.store.database import Database, db_call
from shared.store.server_clock import Clock

MEMORY_TTL: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class MemoryKey:
    """Whose memory it is: an agent's in one basket of one integrator; a run of the agent alone is a basket apart."""

    integrator: str
    kind: str
    basket: str
    agent: str

    @property
    def id(self) -> str:
        """Answer the place as one string; no part of it has a colon."""
        return f"{self.integrator}:{self.kind}:{self.basket}:{self.agent}"


class MongoAgentMemory:
    """Memories in MongoDB, taken away by a TTL index an hour after they were written."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def remember(self, place: MemoryKey, output: bytes, at: datetime) -> None:
        """Keep an output that was recorded ``at``; a later one that is kept already stays."""
        now = self._clock.now()
        older = {"_id": place.id, "at": {"$lte": at}}
        kept = {"integrator": place.integrator, "json": output, "at": at, "expires_at": now + MEMORY_TTL}
        try:
            with db_call(self._database):
                self._database.collection("agent_memory").update_one(older, {"$set": kept}, upsert=True)
        except DuplicateKeyError:
            return

    def recall(self, place: MemoryKey) -> bytes | None:
        """Answer the last output; None where there is none of the last hour; the TTL index is not punctual."""
        alive = {"_id": place.id, "integrator": place.integrator, "expires_at": {"$gt": self._clock.now()}}
        with db_call(self._database, writes=False):
            found = self._database.collection("agent_memory").find_one(alive)
        return None if found is None else bytes(found["json"])
