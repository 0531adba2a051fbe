"""When the leading reconciler sweeps: now and then, a little at a time, and never in the way of a rescue."""

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


class Sweeper:
    """One reconciler's sweeps; an error of the store is for the next time."""

    def __init__(self, sweep: RetentionSweep, views: ViewCache, settings: Settings) -> None:
        self._sweep = sweep
        self._views = views
        self._retention_days = settings.retention_days
        self._retention_due_at = 0.0
        self._orphans_due_at = 0.0
        self._orphans_cursor = ""

    def sweep(self, now: datetime) -> None:
        """Do what is due; one batch of each at most, the next at once where more is left."""
        try:
            if self._retention_days is not None and boottime_s() >= self._retention_due_at:
                gone = self._sweep.delete_expired(now, self._retention_days)
                self._retention_due_at = boottime_s() + (0.0 if len(gone) == SWEEP_BATCH_SIZE else RETENTION_EVERY_S)
                self._delete_views(gone)
                self._log_deleted("runs past their retention", len(gone))
            if boottime_s() >= self._orphans_due_at:
                count, self._orphans_cursor = self._sweep.delete_orphaned_outputs(now, self._orphans_cursor)
                self._orphans_due_at = boottime_s() + (0.0 if self._orphans_cursor else ORPHANS_EVERY_S)
                self._log_deleted("large outputs that nothing names", count)
        except BucketError as away:
            structlog.get_logger().warning("a sweep was not answered", reason=away.message)

    def _delete_views(self, gone: Sequence[str]) -> None:
        try:
            self._views.delete(gone)
        except redis.RedisError as away:  # then they are shown for a day at most
            structlog.get_logger().warning("views of runs past their retention were left behind", reason=str(away))

    @staticmethod
    def _log_deleted(what: str, gone: int) -> None:
        if gone:
            structlog.get_logger().info("swept away", what=what, count=gone)
