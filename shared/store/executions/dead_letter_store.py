"""Dead letters in MongoDB: failed runs that have the flag, found by its index, and messages that could not be read.

A run becomes a dead letter by the same update that fails it, so none is ever missing here. Only unreadable messages
have a collection of their own. Equal messages are one entry with a counter: a broken sender fills no disk.

A letter leaves the list when it is dismissed, or requeued. The insert of the new run is what decides a requeue: the
unique index on ``requeue_of`` lets one run be made for each letter. The flag is removed after that; if the process dies
in between, the list leaves the letter out because the run is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from shared.domain.access.caller import Scope
from shared.domain.dead_letter import DeadLetter, DeadLetterKind, DeadLetterPosition, DeadLetterQuery
from shared.domain.execution import ErrorKind, RunError
from shared.store.database import Database, db_call
from shared.store.executions.documents import decode_error
from shared.store.readable_documents import decode_readable, read_whole_page, time_of
from shared.store.scope_filter import indexed_scope_filter, scope_filter
from shared.store.server_clock import Clock

MESSAGE_MAX_BYTES: Final = 4096

_UNREADABLE: Final = "a message in the queue could not be read; what it stood for is offered again if it is known"
_RUN_PROJECTION: Final = {
    "integrator": 1, "basket_name": 1, "error": 1, "finished_at": 1, "dead_letter": 1, "dismissed_at": 1
}  # fmt: skip
_MESSAGE_ERROR: Final = RunError("internal", _UNREADABLE, ErrorKind.PERMANENT)
_NO_FILTERS: Final = DeadLetterQuery()

_Document = dict[str, Any]


class MongoDeadLetterStore:
    """Dead letters in MongoDB; raises what the execution store raises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def list_page(
        self,
        scope: Scope,
        limit: int,
        after: DeadLetterPosition | None = None,
        filters: DeadLetterQuery = _NO_FILTERS,
    ) -> Sequence[DeadLetter]:
        """Return at most ``limit`` dead letters after the position ``after``, the newest finished first.

        Both collections are merged; each is read by its index and no further than one page. One that cannot be read is
        logged and left out.
        """
        with db_call(self._database, writes=False):
            owners = indexed_scope_filter(self._database, scope)
        letters: list[DeadLetter] = []
        while (missing := limit - len(letters)) > 0:
            page = self._with_retries(self._read_page(owners, scope, missing, after, filters))
            letters += [letter for letter in page if letter.requeued_as is None]
            if len(page) < missing:
                break
            after = page[-1].position
        return letters

    def find(self, scope: Scope, letter_id: str) -> DeadLetter | None:
        """Return the dead run or the unreadable message with this id, also one that has left the list; else None."""
        query = {"_id": str(letter_id)} | scope_filter(scope)
        with db_call(self._database, writes=False):
            run = self._database.collection("executions").find_one(
                query | {"finished_at": {"$type": "date"}}, _RUN_PROJECTION
            )
        if run is not None:
            letters = self._with_retries(list(decode_readable([run], _run_dead_letter)))
            if not letters:
                return None
            letter = letters[0]
            is_letter = "dead_letter" in run or letter.dismissed_at is not None or letter.requeued_as is not None
            return letter if is_letter else None
        with db_call(self._database, writes=False):
            message = self._database.collection("dead_letters").find_one(query)
        return None if message is None else next(decode_readable([message], _message_dead_letter), None)

    def count(self) -> int:
        """Return the number of dead letters of all integrators, by their index."""
        with db_call(self._database, writes=False):
            runs = self._database.collection("executions").count_documents(
                {"dead_letter": True}, hint="dead_letter_pages"
            )
            return runs + self._database.collection("dead_letters").count_documents({"dismissed_at": None})

    def dismiss(self, letter: DeadLetter) -> bool:
        """Take a letter out of the list for good; return whether this call did it. The run itself stays as it is.

        A message that comes again later is in the list again.
        """
        now = self._clock.now()
        query = {"_id": letter.id, "integrator": letter.integrator}
        with db_call(self._database):
            if letter.kind is DeadLetterKind.MESSAGE:
                messages = self._database.collection("dead_letters")
                done = messages.update_one(query | {"dismissed_at": None}, {"$set": {"dismissed_at": now}})
            else:
                update = {"$set": {"dismissed_at": now}, "$unset": {"dead_letter": ""}}
                done = self._database.collection("executions").update_one(query | {"dead_letter": True}, update)
        return done.modified_count > 0

    def remove_requeued(self, integrator: str, letter_id: str) -> None:
        """Remove the flag of a letter for which a new run is stored."""
        query = {"_id": str(letter_id), "integrator": str(integrator), "dead_letter": True}
        with db_call(self._database):
            self._database.collection("executions").update_one(query, {"$unset": {"dead_letter": ""}})

    def add_message(self, integrator: str, message: str) -> None:
        """Store a message that could not be read, cut to 4 KiB, under the hash of its text; an equal one is counted."""
        text = message.encode("utf-8", "replace")
        truncated = text[:MESSAGE_MAX_BYTES].decode("utf-8", "ignore")
        digest = hashlib.sha256(text).hexdigest()[:24]
        update = {
            "$setOnInsert": {"integrator": integrator, "message": truncated},
            "$set": {"finished_at": self._clock.now()},
            "$unset": {"dismissed_at": ""},
            "$inc": {"times": 1},
        }
        with db_call(self._database):
            self._database.collection("dead_letters").update_one({"_id": f"message-{digest}"}, update, upsert=True)

    def _read_page(
        self, owners: _Document, scope: Scope, limit: int, after: DeadLetterPosition | None, filters: DeadLetterQuery
    ) -> list[DeadLetter]:
        equal_to = {"error.error_code": filters.error_code, "error.agent": filters.agent, "basket_name": filters.basket}
        query = owners | {"dead_letter": True}
        query |= {field: str(value) for field, value in equal_to.items() if value is not None}
        letters = self._newest("executions", query, limit, after, _run_dead_letter, projection=_RUN_PROJECTION)
        if filters.agent is None and filters.basket is None and filters.error_code in {None, _MESSAGE_ERROR.error_code}:
            query = scope_filter(scope) | {"dismissed_at": None}
            letters += self._newest("dead_letters", query, limit, after, _message_dead_letter)
        return sorted(letters, key=lambda letter: letter.position, reverse=True)[:limit]

    def _newest(
        self,
        collection: str,
        query: _Document,
        limit: int,
        after: DeadLetterPosition | None,
        decode: Callable[[_Document], DeadLetter],
        *,
        projection: _Document | None = None,
    ) -> list[DeadLetter]:
        if after is not None:
            earlier = {"finished_at": {"$lt": after.finished_at}}
            same_time = {"finished_at": after.finished_at, "_id": {"$lt": after.id}}
            query = query | {"$or": [earlier, same_time], "finished_at": {"$lte": after.finished_at}}
        with db_call(self._database, writes=False):
            found = self._database.collection(collection).find(query, projection)
            return read_whole_page(found.sort([("finished_at", -1), ("_id", -1)]), decode, limit)

    def _with_retries(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        ids = [letter.execution_id for letter in letters if letter.execution_id is not None]
        retry_ids: dict[str, list[str]] = {}
        requeue_ids: dict[str, str] = {}
        if ids:
            # A retry belongs to the integrator of what it retries.
            owners = sorted({letter.integrator for letter in letters})
            query = {"integrator": {"$in": owners}, "retry_of": {"$in": ids}}
            with db_call(self._database, writes=False):
                executions = self._database.collection("executions")
                for retry in executions.find(query, {"retry_of": 1, "requeue_of": 1}).sort("created_at", 1):
                    retry_ids.setdefault(retry["retry_of"], []).append(retry["_id"])
                    if "requeue_of" in retry:
                        requeue_ids[retry["requeue_of"]] = retry["_id"]
        return [
            replace(letter, retried_as=tuple(retry_ids.get(letter.id, ())), requeued_as=requeue_ids.get(letter.id))
            for letter in letters
        ]


def _run_dead_letter(document: _Document) -> DeadLetter:
    error = decode_error(document.get("error")) or RunError("agent_error", "the run failed", ErrorKind.PERMANENT)
    run_id, finished_at = document["_id"], time_of(document, "finished_at")
    return DeadLetter(
        run_id,
        DeadLetterKind.EXECUTION,
        finished_at,
        error,
        document["integrator"],
        run_id,
        document["basket_name"],
        dismissed_at=document.get("dismissed_at"),
    )


def _message_dead_letter(document: _Document) -> DeadLetter:
    return DeadLetter(
        document["_id"],
        DeadLetterKind.MESSAGE,
        time_of(document, "finished_at"),
        _MESSAGE_ERROR,
        document["integrator"],
        message=document["message"],
        occurrences=document["times"],
        dismissed_at=document.get("dismissed_at"),
    )
