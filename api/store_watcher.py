"""Watches MongoDB beside the requests: reads its clock, notices an outage, and prepares it once."""

from __future__ import annotations

import threading
import time

import structlog

from shared.bootstrap import Services
from shared.errors import BucketError


class StoreWatcher:
    """One process's view of MongoDB's health; while it is away, requests fail at once and leave the threads free."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._prepared = threading.Event()
        self._last_refusal = ""

    @property
    def is_prepared(self) -> bool:
        """True once the indexes exist, without which no idempotency key is unique."""
        return self._prepared.is_set()

    def check(self) -> None:
        """Ask MongoDB for its time, and prepare it once; raise nothing that MongoDB returns.

        If it does not reply to this check but to other calls meanwhile, it is busy and not away.
        """
        database = self._services.database
        began = time.monotonic()
        try:
            self._services.clock.sync()
        except BucketError as away:
            if database.is_away or database.has_answered_since(began):
                return
            structlog.get_logger().warning("MongoDB is away", reason=away.message)
            database.is_away = True
            return
        database.is_away = False
        if not self.is_prepared:
            self._prepare()

    def _prepare(self) -> None:
        """Prepare MongoDB; if it refuses (an index, say), submits are refused and polls are not."""
        try:
            self._services.prepare()
            self._prepared.set()
        except BucketError as refused:
            if refused.message != self._last_refusal:  # once, and not ten times a second
                structlog.get_logger().warning("MongoDB is not prepared yet", reason=refused.message)
            self._last_refusal = refused.message
