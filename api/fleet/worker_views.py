"""The workers and reconcilers that are present, as GET /workers shows them to a caller."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from shared.domain.access.caller import Scope
from shared.live.presence.presence_entry import PresentReconciler, PresentWorker, RunningSlot
from shared.timestamps import format_rfc3339


def worker_view(worker: PresentWorker, scope: Scope) -> dict[str, Any]:
    """Return what a caller sees of a worker: of the steps that it runs, only those of ``scope``; all count as busy.

    Of a worker of an older release little is known: what is not is null, and it may serve every queue.
    """
    info = worker.info
    host, _, pid = worker.name.rpartition(":")
    running = () if info is None else info.running
    return {
        "id": worker.name,
        "host": host if info is None else info.host,
        "pid": int(pid) if pid.isdigit() and len(pid) < 10 else None,  # noqa: PLR2004
        "version": None if info is None else info.version,
        "queues": None if info is None else list(info.queues),
        "slots": None if info is None else info.slots,
        "slots_busy": None if info is None else len(running),
        "running": [_slot_view(slot) for slot in running if scope in {None, slot.integrator}],
        "started_at": None if info is None else _moment(info.started_ms),
        "heartbeat_at": _moment(worker.heartbeat_ms),
    }


def reconciler_view(reconciler: PresentReconciler) -> dict[str, Any]:
    """Return what a caller sees of a reconciler."""
    return {
        "id": reconciler.name,
        "leading": reconciler.is_leading,
        "heartbeat_at": _moment(reconciler.heartbeat_ms),
    }


def _slot_view(slot: RunningSlot) -> dict[str, Any]:
    return {
        "execution_id": slot.execution_id,
        "step": slot.step,
        "agent": slot.agent,
        "since": _moment(slot.since_ms),
    }


def _moment(epoch_ms: int | None) -> str | None:
    return None if epoch_ms is None else format_rfc3339(datetime.fromtimestamp(epoch_ms / 1_000, UTC))
