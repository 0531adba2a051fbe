"""When the leading reconciler sweeps: now and then, a little at a time, and never in the way of a rescue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import redis
import structlog

from shared.clock import since_boot
from shared.errors import BucketError
from shared.live.views import Views
from shared.settings import Settings
from shared.store.executions.retention import AT_ONCE, Sweep

RETENTION_EVERY_S: Final = 60.0
UNNAMED_EVERY_S: Final = 600.0


class Sweeper:
    """One reconciler's sweeps; an error of the store is for the next time."""

    def __init__(self, sweep: Sweep, views: Views, settings: Settings) -> None:
        self._sweep = sweep
        self._views = views
        self._days = settings.retention_days
        self._retention_from = 0.0
        self._unnamed_from = 0.0
        self._after = ""

    def sweep(self, now: datetime) -> None:
        """Do what is due; one batch of each at most, the next at once where more is left."""
        try:
            if self._days is not None and since_boot() >= self._retention_from:
                gone = self._sweep.expired(now, self._days)
                self._retention_from = since_boot() + (0.0 if len(gone) == AT_ONCE else RETENTION_EVERY_S)
                self._forget(gone)
                self._tell("runs past their retention", len(gone))
            if since_boot() >= self._unnamed_from:
                count, self._after = self._sweep.unnamed(now, self._after)
                self._unnamed_from = since_boot() + (0.0 if self._after else UNNAMED_EVERY_S)
                self._tell("large outputs that nothing names", count)
        except BucketError as away:
            structlog.get_logger().warning("a sweep was not answered", reason=away.message)

    def _forget(self, gone: Sequence[str]) -> None:
        try:
            self._views.forget(gone)
        except redis.RedisError as away:  # then they are shown for a day at most
            structlog.get_logger().warning("views of runs past their retention were left behind", reason=str(away))

    @staticmethod
    def _tell(what: str, gone: int) -> None:
        if gone:
            structlog.get_logger().info("swept away", what=what, count=gone)
