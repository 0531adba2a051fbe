"""Bulk save of the last decisions on the runs of a batch, published together; none waits longer than 50 ms.

Each part is filtered by version, lease and rev. If not all parts were written, or if no reply came, each is written
alone: this is harmless for those that were written, drops those whose lease is lost, and gives each its own result.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Lease
from shared.errors import BucketError, LeaseLost
from shared.store.executions.bulk import BulkSave
from worker.steps.heartbeat import TICK_S
from worker.steps.pending_writes import WRITE_DELAY_MAX_S, PendingWrites


class BatchWriter:
    """Pending writes of finished runs; the runner's thread adds to them, the heartbeat thread may write them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.RLock()
        self._pending: list[PendingWrites] = []
        self._oldest_since = 0.0

    def add(self, pending_writes: PendingWrites) -> None:
        """Take pending writes over, to be saved with the others."""
        with self._lock:
            self._oldest_since = self._oldest_since if self._pending else boottime_s()
            self._pending.append(pending_writes)

    @property
    def lease(self) -> Lease | None:
        """One of the leases that are still stored; None if there are none."""
        return self._pending[0].lease if self._pending else None

    def write_if_due(self, now: float) -> None:
        """Write if waiting for the next tick would take too long; ``now`` is in seconds since boot."""
        if self._pending and now - self._oldest_since >= WRITE_DELAY_MAX_S - TICK_S:
            self.write()

    def write(self) -> None:
        """Save and publish all that is pending; raises no error of the store: such steps are left to their lease."""
        with self._lock:
            batch, self._pending = self._pending, []
            if not batch:
                return
            as_of = boottime_s()
            saves = [pending.pending_save() for pending in batch]
            if not self._save_together(saves):
                for pending in batch:
                    _write_one(pending)
                return
            saved = [pending.mark_written(save) for pending, save in zip(batch, saves, strict=True)]
            self._services.publisher.publish_decisions(saved, as_of=as_of)
            for pending in batch:
                pending.mark_published()

    def _save_together(self, saves: Sequence[BulkSave]) -> bool:
        try:
            return self._services.bulk.save_all(saves)
        except BucketError as error:  # one part's content was refused, or no reply came
            structlog.get_logger().warning("outcomes are written one by one", count=len(saves), reason=error.message)
            return False


def _write_one(pending_writes: PendingWrites) -> None:
    log = structlog.get_logger().bind(execution_id=pending_writes.execution.id)
    try:
        pending_writes.write_or_fail_step()
    except LeaseLost:
        log.warning("the lease was lost; the outcomes of the agents are dropped")
    except BucketError as error:
        log.warning("an outcome is left to its lease", reason=error.message)
