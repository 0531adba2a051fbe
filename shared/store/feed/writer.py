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

from shared.store.database import Database, call
from shared.store.feed.change_stream import ChangeStream, News, Token
from shared.store.server_clock import Clock

KEPT: Final = timedelta(days=7)
TRIMMED_AT_ONCE: Final = 1_000

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The last batch, as its writer needs it."""

    epoch: str
    number: int
    token: Token
    through: datetime


class FeedLog:
    """The feed's writing side; raises what the store raises."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def _changes(self) -> Collection[_Document]:
        return self._database.collection("changes")

    def ensure_begun(self) -> Head:
        """Answer the last batch; begin the feed where there is none."""
        return self._last() or self.begin_epoch(None)

    def begin_epoch(self, last: Head | None) -> Head:
        """Begin anew from now on, with an empty batch: cursors of before are of an epoch that is over.

        Answers the last batch, whoever wrote it: another may have been first.
        """
        now = self._clock.now()
        with ChangeStream(self._database) as stream:
            token = stream.begin().token
        head = Head(secrets.token_hex(4), 1 if last is None else last.number + 1, token, now)
        return head if self._insert(head, since=now, execution_ids=()) else self.ensure_begun()

    def append(self, last: Head, news: News, *, as_of: datetime) -> Head | None:
        """Write what came after ``last``, asked for at ``as_of``; None where another has written that batch."""
        through = last.through if news.is_full else as_of
        head = Head(last.epoch, last.number + 1, news.token, through)
        return head if self._insert(head, since=last.through, execution_ids=news.execution_ids) else None

    def stamp(self, last: Head, token: Token, *, as_of: datetime) -> Head:
        """Note that nothing came after ``last`` until ``token``, asked for at ``as_of``.

        True of that batch for ever, so it does no harm where another has meanwhile written the next one. Without it
        the token of a feed at rest would leave the oplog, and nobody could tell a feed at rest from one that is dead.
        """
        stamped = replace(last, token=token, through=as_of)
        with call(self._database):
            self._changes.update_one({"_id": last.number}, {"$set": {"token": token, "through": as_of}})
        return stamped

    def trim(self, last: Head) -> int:
        """Delete the oldest batches that are over a week old or of an epoch that is over, never the last one.

        Answers how many it looked at and deleted, :data:`TRIMMED_AT_ONCE` at most.
        """
        old = self._clock.now() - KEPT
        with call(self._database):
            found = self._changes.find({"_id": {"$lt": last.number}}, {"at": 1, "epoch": 1}).sort("_id", 1)
            gone = []
            for batch in found.limit(TRIMMED_AT_ONCE):
                if batch["epoch"] == last.epoch and batch["at"] >= old:
                    break
                gone.append(batch["_id"])
            if gone:
                self._changes.delete_many({"_id": {"$gte": gone[0], "$lte": gone[-1]}})
        return len(gone)

    def _last(self) -> Head | None:
        with call(self._database, writes=False):
            found = self._changes.find_one(sort=[("_id", -1)], projection={"changes": 0})
        return None if found is None else Head(found["epoch"], found["_id"], found["token"], found["through"])

    def _insert(self, head: Head, *, since: datetime, execution_ids: tuple[str, ...]) -> bool:
        document = {
            "_id": head.number,
            "epoch": head.epoch,
            "since": since,
            "through": head.through,
            "at": self._clock.now(),
            "token": head.token,
            "changes": list(execution_ids),
        }
        try:
            with call(self._database):
                self._changes.insert_one(document)
        except DuplicateKeyError:
            return False
        return True
