"""Figures of the fleet: what waits and runs now, and what happened lately, for dashboards and autoscalers.

What waits and runs is counted in MongoDB, so that a message which a worker has received and not begun still counts as
waiting. One count serves every caller of this process for a second, or longer if it took long: it may take a twentieth
of the time at most.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import redis
import structlog

from shared.bootstrap import Services
from shared.domain.access.caller import Scope
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.status import ExecutionStatus
from shared.errors import OutcomeUnknown, Unavailable
from shared.live.redis_monitor import RedisMonitor, RedisSnapshot
from shared.store.fleet.backlog import Backlog
from shared.telemetry.window_counters import FINAL_STATUSES, SUBMITTED, RecentCounts, Slot, WindowCounts, read_counts
from shared.timestamps import format_rfc3339

CACHE_MIN_S: Final = 1.0
CACHE_MAX_S: Final = 30.0
_SHARE_OF_TIME: Final = 20
_SCOPES_MAX: Final = 500
_BASKETS_MAX: Final = 500
_LIVE_STATUSES: Final = tuple(status for status in ExecutionStatus if not status.is_final)
_RUNNING: Final = frozenset({ExecutionStatus.RUNNING, ExecutionStatus.CANCELLING})
_NOT_COUNTED: Final = "the unfinished runs could not be counted; ask again in a moment"
_SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """What waits and runs in one queue, and who works on it."""

    queued: int
    running: int
    workers: int
    slots: int
    oldest_age_s: float | None

    def wanted_workers(self, slots_per_worker: int) -> int:
        """Return how many workers with so many slots each would run all of it at once."""
        return math.ceil((self.queued + self.running) / slots_per_worker)


class FleetStats:
    """Reads the figures for one process; raises Unavailable if a store is away, because zeros would be wrong."""

    def __init__(self, services: Services, monitor: RedisMonitor) -> None:
        self._services = services
        self._monitor = monitor
        self._lock = threading.Lock()
        self._backlog: Backlog | None = None
        self._backlog_until = -math.inf
        self._recent: dict[Scope, tuple[float, RecentCounts]] = {}

    def backlog(self) -> Backlog:
        """Return what is not done, as it was counted a moment ago."""
        with self._lock:
            began_at = time.monotonic()
            if began_at >= self._backlog_until:
                self._backlog = self._count_backlog()
                now = time.monotonic()
                # After a failure it is tried again sooner: half of the time may go into it.
                share = 1 if self._backlog is None else _SHARE_OF_TIME
                self._backlog_until = now + min(max(CACHE_MIN_S, share * (now - began_at)), CACHE_MAX_S)
            if self._backlog is None:
                raise Unavailable(_NOT_COUNTED)
            return self._backlog

    def _count_backlog(self) -> Backlog | None:
        """Return the count, or None: a count that took too long would take as long again for each who waits for it."""
        try:
            return self._services.backlog.read()
        except (Unavailable, OutcomeUnknown) as error:
            structlog.get_logger().warning("the unfinished runs were not counted", reason=error.message)
            return None

    def recent(self, scope: Scope) -> RecentCounts:
        """Return what happened lately to the runs of ``scope``."""
        now = time.monotonic()
        until, recent = self._recent.get(scope, (-math.inf, None))
        if recent is not None and now < until:
            return recent
        try:
            recent = read_counts(self._services.redis, scope, self._services.clock.now())
        except redis.RedisError as error:
            raise Unavailable("Redis, which has the counters, does not answer; ask again in a moment") from error
        if len(self._recent) >= _SCOPES_MAX:
            self._recent.clear()
        self._recent[scope] = (now + CACHE_MIN_S, recent)
        return recent

    def queues(self, scope: Scope) -> Mapping[str, QueueFigures]:
        """Return the figures of each queue, with the runs of ``scope``."""
        backlog, snapshot, now = self.backlog(), self._monitor.last, self._services.clock.now()
        if not snapshot.is_connected:
            raise Unavailable("Redis, which knows the workers, does not answer; ask again in a moment")
        return {queue: self._figures(backlog, snapshot, queue, scope, now) for queue in QUEUE_NAMES}

    def report(
        self,
        scope: Scope,
        queue: str | None = None,
        slots_per_worker: int | None = None,
        series: str | None = None,
    ) -> dict[str, Any]:
        """Return the reply of GET /executions/stats.

        With ``queue`` it has the figures of no other queue; with ``series``, a window, also those of each slot of it.
        """
        queues = self.queues(scope)
        recent = self.recent(scope)
        runs = [row for row in self.backlog().runs if scope in {None, row.integrator}]
        by_status = Counter({str(status): 0 for status in _LIVE_STATUSES})
        baskets: dict[str, dict[str, int]] = {}
        for row in sorted(runs, key=lambda row: -row.runs):
            by_status[row.status] += row.runs
            if row.basket in baskets or len(baskets) < _BASKETS_MAX:
                counts = baskets.setdefault(row.basket, {"queued": 0, "running": 0})
                if row.status == ExecutionStatus.QUEUED:
                    counts["queued"] += row.runs
                elif row.status in _RUNNING:
                    counts["running"] += row.runs
        last_day = recent.windows["24h"].counts
        slots = {} if series is None else {"series": [_slot_view(slot) for slot in recent.series(series)]}
        return {
            "by_status": dict(by_status) | {status: last_day[status] for status in FINAL_STATUSES},
            "queues": {
                name: _queue_view(figures, slots_per_worker or self._slots_per_worker(figures))
                for name, figures in queues.items()
                if queue in {None, name}
            },
            "baskets": dict(sorted(baskets.items())),
            "windows": {name: _window_view(window) for name, window in recent.windows.items()},
            **slots,
        }

    def _figures(
        self, backlog: Backlog, snapshot: RedisSnapshot, queue: str, scope: Scope, now: datetime
    ) -> QueueFigures:
        queued = running = 0
        offers: list[datetime] = []
        for row in backlog.steps:
            if scope not in {None, row.integrator} or self._queue_of(row.agent) != queue:
                continue
            if row.is_running:
                running += row.steps
            else:
                queued += row.steps
                if row.oldest_offer_at is not None:
                    offers.append(row.oldest_offer_at)
        oldest_age_s = max((now - min(offers)).total_seconds(), 0.0) if offers else None
        return QueueFigures(queued, running, snapshot.workers_of(queue), snapshot.slots_of(queue), oldest_age_s)

    def _queue_of(self, agent: str) -> str:
        """Return the queue of an agent, as this release knows it."""
        catalogue = self._services.catalogue
        return catalogue.agent(agent).queue if catalogue.has(agent) else QUEUE_NAMES[0]

    def _slots_per_worker(self, figures: QueueFigures) -> int:
        """Return the mean number of slots of the workers that are there, or else what this process is set to."""
        if figures.workers and figures.slots:
            return max(figures.slots // figures.workers, 1)
        return self._services.settings.worker_concurrency


def _queue_view(figures: QueueFigures, slots_per_worker: int) -> dict[str, Any]:
    return {
        "queued": figures.queued,
        "running": figures.running,
        "workers": figures.workers,
        "slots": figures.slots,
        "oldest_age_s": None if figures.oldest_age_s is None else round(figures.oldest_age_s, 3),
        "wanted_workers": figures.wanted_workers(slots_per_worker),
    }


def _window_view(window: WindowCounts) -> dict[str, Any]:
    return _counts_view(window) | {"failures": dict(window.failures.most_common())}


def _slot_view(slot: Slot) -> dict[str, Any]:
    return {"at": format_rfc3339(slot.at)} | _counts_view(slot.counted)


def _counts_view(counted: WindowCounts) -> dict[str, Any]:
    return {
        **{name: counted.counts[name] for name in (SUBMITTED, *FINAL_STATUSES)},
        "duration_ms": {name: counted.percentile_ms(share) for name, share in _SHARES.items()},
    }
