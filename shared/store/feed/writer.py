"""The writer of the change feed: batches in one collection, numbered without a gap (docs/engine.md, section 8).

The last batch has all that a writer needs: its number, and the resume token of the stream right after it. The writer
of batch n + 1 has read the stream from batch n's token, and the unique ``_id`` lets one writer win; the loser reads the
last batch again and continues from there. So the batches are the stream, cut in pieces, for any number of writers.
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
    """The last batch, as a writer needs it: every change up to ``watermark_at`` is in the feed."""

    epoch: str
    number: int
    token: ResumeToken
    watermark_at: datetime


class FeedWriter:
    """The writer of the feed; raises what the store raises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def _changes(self) -> Collection[_Document]:
        return self._database.collection("changes")

    def ensure_started(self) -> LastBatch:
        """Return the last batch; start the feed if there is none."""
        return self._last() or self.start_epoch(None)

    def start_epoch(self, last: LastBatch | None) -> LastBatch:
        """Start a new epoch from now on, with an empty batch: earlier cursors belong to an epoch that has ended.

        Return the last batch, which may be that of another writer who was first.
        """
        now = self._clock.now()
        with ChangeStream(self._database) as stream:
            token = stream.open_cursor().token
        batch = LastBatch(secrets.token_hex(4), 1 if last is None else last.number + 1, token, now)
        return batch if self._insert(batch, since=now, execution_ids=()) else self.ensure_started()

    def append(self, last: LastBatch, changes: ChangeBatch, *, as_of: datetime) -> LastBatch | None:
        """Write the changes after ``last``, read at ``as_of``, as the next batch; None if another writer wrote it."""
        watermark_at = last.watermark_at if changes.is_full else as_of
        batch = LastBatch(last.epoch, last.number + 1, changes.token, watermark_at)
        return batch if self._insert(batch, since=last.watermark_at, execution_ids=changes.execution_ids) else None

    def advance_watermark(self, last: LastBatch, token: ResumeToken, *, as_of: datetime) -> LastBatch:
        """Store in the last batch that no change came after it until ``token``, read at ``as_of``.

        This stays true of that batch, so it does no harm if another writer has written the next one meanwhile. Without
        it the token of an idle feed would fall out of the oplog, and an idle feed would look like a dead one.
        """
        with db_call(self._database):
            self._changes.update_one({"_id": last.number}, {"$set": {"token": token, "through": as_of}})
        return replace(last, token=token, watermark_at=as_of)

    def trim(self, last: LastBatch) -> int:
        """Delete the oldest batches that are over a week old or of an earlier epoch, never the last one (retention).

        Return the number of deleted batches, at most :data:`TRIM_BATCH_SIZE`.
        """
        kept_since = self._clock.now() - FEED_RETENTION
        with db_call(self._database):
            cursor = self._changes.find({"_id": {"$lt": last.number}}, {"at": 1, "epoch": 1}).sort("_id", 1)
            ids = []
            for batch in cursor.limit(TRIM_BATCH_SIZE):
                if batch["epoch"] == last.epoch and batch["at"] >= kept_since:
                    break
                ids.append(batch["_id"])
            if ids:
                self._changes.delete_many({"_id": {"$gte": ids[0], "$lte": ids[-1]}})
        return len(ids)

    def _last(self) -> LastBatch | None:
        with db_call(self._database, writes=False):
            document = self._changes.find_one(sort=[("_id", -1)], projection={"changes": 0})
        if document is None:
            return None
        return LastBatch(document["epoch"], document["_id"], document["token"], document["through"])

    def _insert(self, batch: LastBatch, *, since: datetime, execution_ids: tuple[str, ...]) -> bool:
        document = {
            "_id": batch.number,
            "epoch": batch.epoch,
            "since": since,
            "through": batch.watermark_at,
            "at": self._clock.now(),
            "token": batch.token,
            "changes": list(execution_ids),
        }
        try:
            with db_call(self._database):
                self._changes.insert_one(document)
        except DuplicateKeyError:
            return False
        return True
