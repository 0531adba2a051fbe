"""The change stream of executions: changes that pollers can see, with read concern majority, in commit order.

Only ids travel: mongod itself leaves out inputs and outputs, heartbeats, claims and tombstones. The stream is read by
plain commands, so that one reply is one batch, with the token that continues right after it, and the driver resumes
nothing on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from shared.domain.feed_position import BATCH_CHANGES_MAX, coalesce
from shared.store.database import Database, db_call, translate_errors
from shared.store.feed.feed_errors import ChangeHistoryLost

ResumeToken = Mapping[str, Any]

# A stream that resumes far behind reads the whole oplog in between: an hour of it in half a minute.
_RESUME_TIMEOUT_S: Final = 300.0
# ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken, and an event that is too large to be sent.
_HISTORY_LOST_CODES: Final = frozenset({286, 280, 260, 10334})
# A write that does not change the rev is visible to no poller. An update too large for the log becomes a replacement.
_VISIBLE_CHANGES: Final[Mapping[str, Any]] = {
    "$or": [
        {"operationType": {"$in": ["insert", "replace"]}, "fullDocument.status": {"$exists": True}},
        {"operationType": "update", "updateDescription.updatedFields.rev": {"$exists": True}},
    ]
}


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """One reply: the ids of changed executions, each once at its latest position; if ``is_full``, more may follow."""

    execution_ids: tuple[str, ...]
    token: ResumeToken
    is_full: bool


class ChangeStream:
    """One change stream, from the resume token ``after`` on, or from now.

    All methods raise what the store raises, and ChangeHistoryLost.
    """

    def __init__(self, database: Database, after: ResumeToken | None = None) -> None:
        self._database = database
        self._after = after
        self._exit_stack = ExitStack()
        self._session: ClientSession | None = None
        self._cursor_id = 0

    def __enter__(self) -> Self:
        """Start a session of the driver, to which the cursor will belong."""
        with db_call(self._database, writes=False):
            self._session = self._exit_stack.enter_context(self._database.session())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the session and, after no error, close the cursor, which would otherwise stay open for ten minutes."""
        with self._exit_stack:
            if kind is None and self._cursor_id:
                with db_call(self._database, writes=False):
                    self._command({"killCursors": "executions", "cursors": [self._cursor_id]})

    def open_cursor(self) -> ChangeBatch:
        """Open the stream; return the changes since the resume token, or, without one, only the present token."""
        stage = {} if self._after is None else {"resumeAfter": self._after}
        command = {
            "aggregate": "executions",
            "pipeline": [{"$changeStream": stage}, {"$match": _VISIBLE_CHANGES}, {"$project": {"documentKey._id": 1}}],
            "cursor": {"batchSize": 0 if self._after is None else BATCH_CHANGES_MAX},
            "readConcern": {"level": "majority"},
        }
        with db_call(self._database, writes=False, timeout_s=None if self._after is None else _RESUME_TIMEOUT_S):
            return self._run_cursor_command(command, "firstBatch")

    def wait_for_changes(self, timeout_s: float) -> ChangeBatch:
        """Wait for changes, at most ``timeout_s`` seconds, and return them."""
        if not self._cursor_id:
            raise ChangeHistoryLost("executions was dropped or renamed: its change stream has ended")
        command = {
            "getMore": self._cursor_id,
            "collection": "executions",
            "batchSize": BATCH_CHANGES_MAX,
            "maxTimeMS": int(timeout_s * 1_000),
        }
        with translate_errors():
            return self._run_cursor_command(command, "nextBatch")

    def _run_cursor_command(self, command: dict[str, Any], batch: str) -> ChangeBatch:
        try:
            cursor = self._command(command)["cursor"]
        except OperationFailure as failed:
            if failed.code in _HISTORY_LOST_CODES:
                raise ChangeHistoryLost from failed
            raise
        self._cursor_id = cursor["id"]
        events = cursor[batch]
        ids = coalesce(event["documentKey"]["_id"] for event in events)
        return ChangeBatch(ids, cursor["postBatchResumeToken"], is_full=len(events) >= BATCH_CHANGES_MAX)

    def _command(self, command: dict[str, Any]) -> dict[str, Any]:
        return self._database.collection("executions").database.command(command, session=self._session)
