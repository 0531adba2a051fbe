"""Failed attempts in MongoDB, with the tracebacks of their agents; for operators alone, and never in a reply.

They are a secondary write: nothing about a run depends on them, so they are acknowledged by the primary alone, and
have little time. They are deleted with their run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Final

from pymongo.write_concern import WriteConcern

from shared.domain.access.caller import Scope
from shared.domain.attempt_failure import AttemptFailure
from shared.store.database import Database, db_call
from shared.store.scope_filter import scope_filter

WRITE_TIMEOUT_S: Final = 0.5
READ_MAX: Final = 1_000
_ONE_SERVER: Final = WriteConcern(w=1)
_FIELDS: Final = tuple(field.name for field in fields(AttemptFailure))


class MongoFailureStore:
    """Failed attempts by execution; raises what the execution store raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, failure: AttemptFailure) -> None:
        """Store a failed attempt; gives up after half a second."""
        with db_call(self._database, timeout_s=WRITE_TIMEOUT_S):
            failures = self._database.collection("failures").with_options(write_concern=_ONE_SERVER)
            failures.insert_one(asdict(failure))

    def list_all(self, scope: Scope, execution_id: str) -> Sequence[AttemptFailure]:
        """Return the failed attempts of an execution, oldest first."""
        query = {"execution_id": str(execution_id)} | scope_filter(scope)
        with db_call(self._database, writes=False):
            found = list(self._database.collection("failures").find(query).sort("at", 1).limit(READ_MAX))
        return [AttemptFailure(**{name: document[name] for name in _FIELDS}) for document in found]
