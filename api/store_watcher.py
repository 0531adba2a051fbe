"""Watches MongoDB in the background: reads its clock, detects an outage, and creates the indexes once."""

from __future__ import annotations

import threading
import time

import structlog

from shared.bootstrap import Services
from shared.errors import BucketError


class StoreWatcher:
    """The state of MongoDB as one process sees it; during an outage requests fail at once and block no threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.prepared = threading.Event()
        self._last_refusal = ""

    @property
    def is_prepared(self) -> bool:
        """Whether the indexes exist; without them no idempotency key is unique."""
        return self.prepared.is_set()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is awaited: MongoDB is prepared and replies."""
        return self.is_prepared and not self._services.database.is_away

    def check(self) -> None:
        """Read MongoDB's time, and prepare it once; errors of MongoDB are logged and not raised.

        If it does not reply to this check, but to other calls meanwhile, it is busy and not away.
        """
        database = self._services.database
        began = time.monotonic()
        try:
            self._services.clock.sync()
        except BucketError as error:
            if database.is_away or database.has_replied_since(began):
                return
            structlog.get_logger().warning("MongoDB is away", reason=error.message)
            database.is_away = True
            return
        database.is_away = False
        if not self.is_prepared:
            self._prepare()

    def _prepare(self) -> None:
        """Prepare MongoDB; if it refuses (for example an index), submits are refused and polls are not."""
        try:
            self._services.prepare()
            self.prepared.set()
        except BucketError as error:
            if error.message != self._last_refusal:  # log it once, not ten times a second
                structlog.get_logger().warning("MongoDB is not prepared yet", reason=error.message)
            self._last_refusal = error.message
