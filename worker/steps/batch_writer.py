"""The last decisions on the runs of a batch, written at once and told at once; none waits longer than 50 ms.

Each is filtered by version, lease and rev as if it were written alone. Where not all were written, or nobody can tell,
each is written alone: that is harmless for those that were, drops the ones whose lease is lost, and is answered for
each by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Lease
from shared.errors import BucketError, LeaseLost
from shared.store.executions.port import BulkSave
from worker.steps.heartbeat import TICK_S
from worker.steps.pending_writes import PendingWrites


class BatchWriter:
    """Drafts whose runs this worker is done with; the runner's thread adds, that of the heartbeat may write."""

    def __init__(self, services: Services, write_delay_max_s: float) -> None:
        self._batch_store = services.bulk
        self._publisher = services.publisher
        self._due_after_s = write_delay_max_s - TICK_S
        self._lock = threading.RLock()
        self._pending: list[PendingWrites] = []
        self._oldest_since = 0.0

    def add(self, draft: PendingWrites) -> None:
        """Take a draft over, to be written with the others."""
        with self._lock:
            self._oldest_since = self._oldest_since if self._pending else boottime_s()
            self._pending.append(draft)

    @property
    def lease(self) -> Lease | None:
        """One of the leases that are still stored; None where there are none."""
        return self._pending[0].lease if self._pending else None

    def write_if_due(self, now: float) -> None:
        """Write where waiting for the next tick would be too long; ``now`` is in seconds since boot."""
        if self._pending and now - self._oldest_since >= self._due_after_s:
            self.write()

    def write(self) -> None:
        """Write and tell all there is; raises nothing of the store's: what cannot be written is left to its lease."""
        with self._lock:
            drafts, self._pending = self._pending, []
            if not drafts:
                return
            as_of = boottime_s()
            saves = [draft.pending_save() for draft in drafts]
            if not self._save_together(saves):
                for draft in drafts:
                    _write_one(draft)
                return
            told = [draft.mark_written(save) for draft, save in zip(drafts, saves, strict=True)]
            self._publisher.publish_decisions(told, as_of=as_of)
            for draft in drafts:
                draft.mark_published()

    def _save_together(self, saves: Sequence[BulkSave]) -> bool:
        try:
            return self._batch_store.save_all(saves)
        except BucketError as unknown:  # refused for one's content, or not answered: then each finds out for itself
            structlog.get_logger().warning("outcomes are written one by one", count=len(saves), reason=unknown.message)
            return False


def _write_one(draft: PendingWrites) -> None:
    log = structlog.get_logger().bind(execution_id=draft.execution.id)
    try:
        draft.write_or_fail_step()
    except LeaseLost:
        log.warning("the lease was lost; what the agents returned is dropped")
    except BucketError as away:
        log.warning("an outcome is left to its lease", reason=away.message)
