"""Retention: when the leading reconciler deletes expired runs and orphaned outputs, in small batches.

Retention has a batch each minute, orphaned outputs each ten minutes, so that no pass delays rescues for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import redis
import structlog

from shared.clock import boottime_s
from shared.errors import BucketError
from shared.live.views import ViewCache
from shared.settings import Settings
from shared.store.executions.retention import SWEEP_BATCH_SIZE, RetentionSweep

RETENTION_EVERY_S: Final = 60.0
ORPHANS_EVERY_S: Final = 600.0


class RetentionSweeper:
    """One reconciler's retention sweeps; after an error of the store the next pass tries again."""

    def __init__(self, sweep: RetentionSweep, views: ViewCache, settings: Settings) -> None:
        self._sweep = sweep
        self._views = views
        self._retention_days = settings.retention_days
        self._retention_due_at = 0.0
        self._orphans_due_at = 0.0
        self._orphans_cursor = ""

    def sweep(self, now: datetime) -> None:
        """Do what is due, at most one batch of each kind; if more is left, the next pass goes on."""
        try:
            if self._retention_days is not None and boottime_s() >= self._retention_due_at:
                deleted = self._sweep.delete_expired(now, self._retention_days)
                self._retention_due_at = boottime_s() + (0.0 if len(deleted) == SWEEP_BATCH_SIZE else RETENTION_EVERY_S)
                self._delete_views(deleted)
                self._log_deleted("runs past their retention", len(deleted))
            if boottime_s() >= self._orphans_due_at:
                count, self._orphans_cursor = self._sweep.delete_orphaned_outputs(now, self._orphans_cursor)
                self._orphans_due_at = boottime_s() + (0.0 if self._orphans_cursor else ORPHANS_EVERY_S)
                self._log_deleted("large outputs that nothing names", count)
        except BucketError as error:
            structlog.get_logger().warning("the store did not reply to a retention sweep", reason=error.message)

    def _delete_views(self, deleted: Sequence[tuple[str, str]]) -> None:
        try:
            self._views.delete(deleted)
        except redis.RedisError as error:  # then they stay for a day at most
            structlog.get_logger().warning("views of runs past their retention were left behind", reason=str(error))

    @staticmethod
    def _log_deleted(what: str, count: int) -> None:
        if count:
            structlog.get_logger().info("expired data was deleted", what=what, count=count)
