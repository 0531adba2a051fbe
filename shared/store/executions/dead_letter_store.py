"""Dead letters: failed runs that bear the flag, found by its index, and the messages that could not be read.

A run becomes one by the very update that fails it, so none is ever missing here; what is kept apart is only what no
run stands for. Equal messages are one entry that counts them: a broken sender fills no disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from shared.domain.dead_letter import DeadLetter, DeadLetterKind, DeadLetterPosition
from shared.domain.execution import ErrorKind, RunError
from shared.store.database import Database, db_call
from shared.store.executions.documents import decode_error
from shared.store.server_clock import Clock

MESSAGE_MAX_BYTES: Final = 4096

_UNREADABLE: Final = "a message in the queue could not be read; what it stood for is offered again if it is known"
_SHOWN: Final = {"basket_name": 1, "error": 1, "finished_at": 1}

_Document = dict[str, Any]


class DeadLetterStore(Protocol):
    """A place that lists what is dead."""

    def page(self, integrator: str, limit: int, after: DeadLetterPosition | None = None) -> Sequence[DeadLetter]:
        """Answer at most ``limit`` dead letters beyond ``after``, the newest finished first."""

    def find(self, integrator: str, letter_id: str) -> DeadLetter | None:
        """Answer a dead letter; None where there is none of this id."""

    def add_message(self, integrator: str, message: str) -> None:
        """Keep a message that could not be read, cut to 4 KiB; an equal one is counted."""


class MongoDeadLetterStore:
    """Dead letters in MongoDB; raises what the store raises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def page(self, integrator: str, limit: int, after: DeadLetterPosition | None = None) -> Sequence[DeadLetter]:
        """Answer a page of both collections, merged; each is read by its index and no further than a page."""
        dead = {"integrator": str(integrator), "dead_letter": True}
        runs = [_of_run(found) for found in self._newest("executions", dead, limit, after, _SHOWN)]
        unread = self._newest("dead_letters", {"integrator": str(integrator)}, limit, after, None)
        letters = [*runs, *(_of_message(found) for found in unread)]
        shown = sorted(letters, key=lambda letter: letter.position, reverse=True)[:limit]
        return self._with_retries(integrator, shown)

    def find(self, integrator: str, letter_id: str) -> DeadLetter | None:
        """Answer the run or the message of this id."""
        named = {"_id": str(letter_id), "integrator": str(integrator)}
        with db_call(self._database, writes=False):
            run = self._database.collection("executions").find_one(named | {"dead_letter": True}, _SHOWN)
        if run is not None:
            return self._with_retries(integrator, [_of_run(run)])[0]
        with db_call(self._database, writes=False):
            message = self._database.collection("dead_letters").find_one(named)
        return None if message is None else _of_message(message)

    def add_message(self, integrator: str, message: str) -> None:
        """Keep a message under the mark of its text."""
        text = message.encode("utf-8", "replace")
        cut = text[:MESSAGE_MAX_BYTES].decode("utf-8", "ignore")
        mark = hashlib.sha256(text).hexdigest()[:24]
        with db_call(self._database):
            self._database.collection("dead_letters").update_one(
                {"_id": f"message-{mark}"},
                {
                    "$setOnInsert": {"integrator": integrator, "message": cut},
                    "$set": {"finished_at": self._clock.now()},
                    "$inc": {"times": 1},
                },
                upsert=True,
            )

    def _newest(
        self, collection: str, wanted: _Document, limit: int, after: DeadLetterPosition | None, shown: _Document | None
    ) -> list[_Document]:
        if after is not None:
            earlier = {"finished_at": {"$lt": after.finished_at}}
            beside = {"finished_at": after.finished_at, "_id": {"$lt": after.id}}
            wanted = wanted | {"$or": [earlier, beside], "finished_at": {"$lte": after.finished_at}}
        with db_call(self._database, writes=False):
            found = self._database.collection(collection).find(wanted, shown)
            return list(found.sort([("finished_at", -1), ("_id", -1)]).limit(limit))

    def _with_retries(self, integrator: str, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        ids = [letter.execution_id for letter in letters if letter.execution_id is not None]
        made: dict[str, list[str]] = {}
        if ids:
            retries = {"integrator": str(integrator), "retry_of": {"$in": ids}}
            with db_call(self._database, writes=False):
                executions = self._database.collection("executions")
                for found in executions.find(retries, {"retry_of": 1}).sort("created_at", 1):
                    made.setdefault(found["retry_of"], []).append(found["_id"])
        return [replace(letter, retried_as=tuple(made.get(letter.id, ()))) for letter in letters]


def _of_run(found: _Document) -> DeadLetter:
    error = decode_error(found.get("error")) or RunError("agent_error", "the run failed", ErrorKind.PERMANENT)
    return DeadLetter(
        found["_id"], DeadLetterKind.EXECUTION, found["finished_at"], error, found["_id"], found["basket_name"]
    )


def _of_message(found: _Document) -> DeadLetter:
    return DeadLetter(
        found["_id"],
        DeadLetterKind.MESSAGE,
        found["finished_at"],
        RunError("internal", _UNREADABLE, ErrorKind.PERMANENT),
        message=found["message"],
        occurrences=found["times"],
    )
