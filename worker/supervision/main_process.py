"""What a worker's main process does beside Celery: its mark in Redis, the drain flag, the watchdog."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import redis
import structlog
from celery import bootsteps, signals

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import ErrorKind, Execution, RunError
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.domain.lifecycle.transitions import fail
from shared.errors import BucketError, LeaseLost
from shared.live.worker_presence import WorkerPresence
from shared.queue.message import list_keys
from shared.store.executions.settle import settle
from worker.supervision.shared_slots import SharedSlots, SlotState
from worker.supervision.watchdog import Watchdog

_RECORD_TIMEOUT_S: Final = 60.0
_TICK_EVERY_S: Final = 1.0


class MainProcess:
    """One worker's main process; Celery's signals and a bootstep call it."""

    def __init__(self, services: Services, slots: SharedSlots) -> None:
        self._services = services
        self._slots = slots
        self._presence = WorkerPresence(services.redis, f"{socket.gethostname()}:{os.getpid()}")
        self._queues: Sequence[str] = ()

    def connect_signals(self) -> None:
        """Listen to Celery's signals."""
        signals.worker_ready.connect(self._on_worker_ready, weak=False)
        signals.worker_shutting_down.connect(self._on_worker_shutting_down, weak=False)

    def start_watchdog(self, worker: Any) -> None:
        """Begin to watch the pool of a Celery worker, and its loop."""
        self._queues = list(worker.app.amqp.queues.consume_from)
        watchdog = Watchdog(
            self._slots,
            lease_s=self._services.settings.lease_s,
            record_killed=self._record_killed_step,
            backlog_size=self._backlog_size,
            pool_pids=partial(_pool_pids, worker),
        )
        worker.timer.call_repeatedly(_TICK_EVERY_S, watchdog.tick)
        watchdog.start()

    def _on_worker_ready(self, **_: Any) -> None:
        self._presence.start()

    def _on_worker_shutting_down(self, **_: Any) -> None:
        self._slots.begin_drain()
        self._presence.stop()

    def _backlog_size(self) -> int | None:
        try:
            return sum(int(self._services.redis.llen(name)) for queue in self._queues for name in list_keys(queue))
        except redis.RedisError:
            return None

    def _record_killed_step(self, killed: SlotState) -> None:
        """Write why the step of a killed child ended, where it was asked to; else its lease runs out: a loss."""
        lease = killed.lease
        if lease is None or killed.stop_reason not in {"timeout", "cancelled"}:
            return
        until = boottime_s() + _RECORD_TIMEOUT_S

        def decide(seen: Execution) -> Decision:
            step = seen.steps[lease.step]
            if killed.stop_reason == "cancelled":
                error = cancelled_error(seen, step)
            else:
                message = f"{step.id} took longer than it may, and its process had to be killed"
                error = RunError("timeout", message, ErrorKind.TIMEOUT, step.agent, step.id, step.claims)
            return fail(seen, lease, error, self._services.clock.now())

        try:
            execution = self._services.store.load(lease.integrator, lease.execution_id)
            if execution is None:
                return
            settled = settle(self._services.store, execution, decide, lease=lease, give_up=lambda: boottime_s() > until)
        except LeaseLost:
            return
        except BucketError as away:
            structlog.get_logger().warning("a killed step is left to its lease", reason=away.message)
            return
        if settled is not None:
            told = settled.record.lines_total - len(settled.decision.events)
            self._services.publisher.publish_decision(
                settled.record, settled.decision, as_of=settled.as_of, published_seq=told
            )


def watchdog_bootstep(main_process: MainProcess) -> type[bootsteps.StartStopStep]:
    """Answer the bootstep that has ``parent`` watch once the pool stands."""

    class Watching(bootsteps.StartStopStep):  # type: ignore[misc]
        """Begins the watchdog."""

        requires = ("celery.worker.components:Pool", "celery.worker.components:Timer")

        def start(self, worker: Any) -> None:
            """Begin."""
            main_process.start_watchdog(worker)

        def stop(self, worker: Any) -> None:
            """Nothing: the watchdog watches the shutdown too."""

        def terminate(self, worker: Any) -> None:
            """Nothing, as above."""

    return Watching


def _pool_pids(worker: Any) -> set[int]:
    pool = getattr(worker.pool, "_pool", None)
    return {process.pid for process in getattr(pool, "_pool", ())}
