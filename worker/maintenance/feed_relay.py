"""Relays MongoDB's change stream into the change feed: the second thread of the leading reconciler.

It decides nothing, and it need not be the only one. Two relays at once write the same stream in the same order: each
batch is written by one of them and begins where the last one ended (:mod:`shared.store.feed.writer`). A relay that
dies or loses its primary costs the feed time but no change. Under load a batch gathers all changes that came while the
last one was written, so that many changes share one write; at rest a change is in the feed at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

import redis
import structlog

from shared import fault_injection
from shared.clock import boottime_s
from shared.errors import BucketError
from shared.live.redis_client import drop_if_demoted
from shared.live.signals import pubsub
from shared.store.database import Database
from shared.store.feed.change_stream import ChangeBatch, ChangeStream
from shared.store.feed.feed_errors import ChangeHistoryLost
from shared.store.feed.writer import TRIM_BATCH_SIZE, FeedWriter, LastBatch
from shared.store.server_clock import Clock

STREAM_WAIT_MAX_S: Final = 1.5
"""The longest wait for a change; at rest the watermark is advanced after each wait."""
BATCH_INTERVAL_MIN_S: Final = 0.1
"""Batches follow each other no faster than this, unless the stream is behind."""
RETRY_AFTER_S: Final = 0.5
_TRIM_EVERY_S: Final = 60.0
_CHECK_LEADER_EVERY_S: Final = 0.2


class FeedRelay:
    """One process's relay of the change stream; it works while ``is_leader()`` holds."""

    def __init__(self, database: Database, writer: FeedWriter, clock: Clock, is_leader: Callable[[], bool]) -> None:
        self._database = database
        self._feed = writer
        self._clock = clock
        self._is_leader = is_leader
        self.notify: Callable[[], None] = lambda: None
        """Called after each batch, when a majority has it."""
        self._trim_due_at = 0.0
        self._log = structlog.get_logger()

    def run(self, stop: threading.Event) -> None:
        """Relay until ``stop`` is set; begins again after every failure."""
        while not stop.wait(_CHECK_LEADER_EVERY_S):
            if not self._is_leader():
                continue
            try:
                self.relay_while_leader(stop)
            except BucketError as error:
                self._log.warning("the feed's relay begins again", reason=error.message)
                stop.wait(RETRY_AFTER_S)
            except Exception:  # noqa: BLE001  (it must go on: nothing else relays)
                self._log.exception("the feed's relay failed")
                stop.wait(RETRY_AFTER_S)

    def relay_while_leader(self, stop: threading.Event) -> None:
        """Relay from the last batch on, as long as this process leads and no other relay writes.

        If the change stream has lost its history, it begins a new epoch of the feed.
        """
        last = self._feed.ensure_started()
        try:
            self._relay_changes(last, stop)
        except ChangeHistoryLost as error:
            self._log.warning("changes may be missing from the feed: a new epoch begins", reason=error.message)
            self._feed.start_epoch(self._feed.ensure_started())
            self._trim_due_at = 0.0

    def _relay_changes(self, last: LastBatch, stop: threading.Event) -> None:
        with ChangeStream(self._database, last.token) as stream:
            as_of = self._clock.now()
            batch = stream.open_cursor()
            while True:
                written = self._write_batch(last, batch, as_of)
                if written is None:
                    self._log.info("another relay writes the feed", after=last.number)
                    return
                last = written
                self._trim_if_due(last)
                if batch.execution_ids and not batch.is_full:
                    stop.wait(BATCH_INTERVAL_MIN_S)
                if stop.is_set() or not self._is_leader():
                    return
                as_of = self._clock.now()
                batch = stream.wait_for_changes(STREAM_WAIT_MAX_S)

    def _write_batch(self, last: LastBatch, batch: ChangeBatch, as_of: datetime) -> LastBatch | None:
        """Append ``batch`` to the feed, or advance the watermark if it is empty; None if another relay was first."""
        if not batch.execution_ids:
            return self._feed.advance_watermark(last, batch.token, as_of=as_of)
        fault_injection.reach("relay.read")
        written = self._feed.append(last, batch, as_of=as_of)
        if written is not None:
            fault_injection.reach("relay.written")
            self.notify()
        return written

    def _trim_if_due(self, last: LastBatch) -> None:
        if boottime_s() >= self._trim_due_at:
            gone = self._feed.trim(last)
            self._trim_due_at = boottime_s() + (0.0 if gone == TRIM_BATCH_SIZE else _TRIM_EVERY_S)


class FeedNotifier:
    """Wakes the held polls of the feed by pub/sub; after an error of Redis it pauses for a second."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._muted_until = 0.0

    def __call__(self) -> None:
        """Publish a wake-up, which may be lost."""
        if boottime_s() < self._muted_until:
            return
        try:
            pubsub.publish_wakeup(self._redis, pubsub.FEED_TOPIC)
        except redis.RedisError as error:
            self._muted_until = boottime_s() + 1.0
            structlog.get_logger().warning("the wake-up for the feed was not published", reason=str(error))
            drop_if_demoted(self._redis, error)
