"""Appends new audit events to the chain: the third thread of the leading reconciler.

Readers of the audit log do so too before they read, so this thread only keeps what waits small.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

from shared.errors import BucketError
from shared.store.access.audit_sequencer import AuditSequencer
from shared.store.server_clock import Clock

EVERY_S: Final = 5.0
"""At rest each pass is two reads; a second's period cost a tenth of all that Bucket's processes use then."""
_BATCHES_MAX: Final = 20


class AuditSequencing:
    """One process's passes over the events that wait; it works while ``is_leader()`` holds."""

    def __init__(
        self, sequencer: AuditSequencer, clock: Clock, is_leader: Callable[[], bool], *, every_s: float = EVERY_S
    ) -> None:
        self._every_s = every_s
        self._sequencer = sequencer
        self._clock = clock
        self._is_leader = is_leader

    def run(self, stop: threading.Event) -> None:
        """Make passes until ``stop`` is set; go on after every failure."""
        log = structlog.get_logger()
        while not stop.wait(self._every_s):
            if not self._is_leader():
                continue
            try:
                while not self._sequencer.sequence(self._clock.now(), _BATCHES_MAX) and not stop.is_set():
                    pass  # more waits than one pass takes
            except BucketError as error:
                log.warning("the store did not reply to the audit's sequencer", reason=error.message)
            except Exception:
                log.exception("the audit's sequencer failed")
