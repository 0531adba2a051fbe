"""The change feed as it is written: batches in one collection, numbered without a gap.

The last batch says all that a writer needs: its number, and the token of the stream right after it. Whoever writes
batch n + 1 has read the stream from batch n's token, and the unique ``_id`` lets one writer win; the loser reads the
last batch again and goes on from there. So the batches are the stream, cut in pieces, whoever wrote which.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from shared.store.database import Database, db_call
from shared.store.feed.change_stream import ChangeBatch, ChangeStream, ResumeToken
from shared.store.server_clock import Clock

FEED_RETENTION: Final = timedelta(days=7)
TRIM_BATCH_SIZE: Final = 1_000

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LastBatch:
    """The last batch, as its writer needs it."""

    epoch: str
    number: int
    token: ResumeToken
    watermark_at: datetime


class FeedWriter:
    """The feed's writing side; raises what the store raises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def _changes(self) -> Collection[_Document]:
        return self._database.collection("changes")

    def ensure_started(self) -> LastBatch:
        """Answer the last batch; begin the feed where there is none."""
        return self._last() or self.start_epoch(None)

    def start_epoch(self, last: LastBatch | None) -> LastBatch:
        """Begin anew from now on, with an empty batch: cursors of before are of an epoch that is over.

        Answers the last batch, whoever wrote it: another may have been first.
        """
        now = self._clock.now()
        with ChangeStream(self._database) as stream:
            token = stream.open_cursor().token
        head = LastBatch(secrets.token_hex(4), 1 if last is None else last.number + 1, token, now)
        return head if self._insert(head, since=now, execution_ids=()) else self.ensure_started()

    def append(self, last: LastBatch, changes: ChangeBatch, *, as_of: datetime) -> LastBatch | None:
        """Write what came after ``last``, asked for at ``as_of``; None where another has written that batch."""
        through = last.watermark_at if changes.is_full else as_of
        head = LastBatch(last.epoch, last.number + 1, changes.token, through)
        return head if self._insert(head, since=last.watermark_at, execution_ids=changes.execution_ids) else None

    def advance_watermark(self, last: LastBatch, token: ResumeToken, *, as_of: datetime) -> LastBatch:
        """Note that nothing came after ``last`` until ``token``, asked for at ``as_of``.

        True of that batch for ever, so it does no harm where another has meanwhile written the next one. Without it
        the token of a feed at rest would leave the oplog, and nobody could tell a feed at rest from one that is dead.
        """
        stamped = replace(last, token=token, watermark_at=as_of)
        with db_call(self._database):
            self._changes.update_one({"_id": last.number}, {"$set": {"token": token, "through": as_of}})
        return stamped

    def trim(self, last: LastBatch) -> int:
        """Delete the oldest batches that are over a week old or of an epoch that is over, never the last one.

        Answers how many it looked at and deleted, :data:`TRIMMED_AT_ONCE` at most.
        """
        old = self._clock.now() - FEED_RETENTION
        with db_call(self._database):
            found = self._changes.find({"_id": {"$lt": last.number}}, {"at": 1, "epoch": 1}).sort("_id", 1)
            gone = []
            for batch in found.limit(TRIM_BATCH_SIZE):
                if batch["epoch"] == last.epoch and batch["at"] >= old:
                    break
                gone.append(batch["_id"])
            if gone:
                self._changes.delete_many({"_id": {"$gte": gone[0], "$lte": gone[-1]}})
        return len(gone)

    def _last(self) -> LastBatch | None:
        with db_call(self._database, writes=False):
            found = self._changes.find_one(sort=[("_id", -1)], projection={"changes": 0})
        return None if found is None else LastBatch(found["epoch"], found["_id"], found["token"], found["through"])

    def _insert(self, head: LastBatch, *, since: datetime, execution_ids: tuple[str, ...]) -> bool:
        document = {
            "_id": head.number,
            "epoch": head.epoch,
            "since": since,
            "through": head.watermark_at,
            "at": self._clock.now(),
            "token": head.token,
            "changes": list(execution_ids),
        }
        try:
            with db_call(self._database):
                self._changes.insert_one(document)
        except DuplicateKeyError:
            return False
        return True
