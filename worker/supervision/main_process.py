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
from shared.clock import since_boot
from shared.domain.execution import ErrorKind, Execution, RunError
from shared.domain.lifecycle.decision import Advance
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.domain.lifecycle.transitions import fail
from shared.errors import BucketError, LeaseLost
from shared.live.worker_presence import WorkerMark
from shared.queue.message import lists_of
from shared.store.executions.settle import settle
from worker.supervision.shared_slots import Seen, Slots
from worker.supervision.watchdog import Watchdog

_RECORD_WITHIN_S: Final = 60.0
_TICK_EVERY_S: Final = 1.0


class Parent:
    """One worker's main process; Celery's signals and a bootstep call it."""

    def __init__(self, services: Services, slots: Slots) -> None:
        self._services = services
        self._slots = slots
        self._mark = WorkerMark(services.redis, f"{socket.gethostname()}:{os.getpid()}")
        self._queues: Sequence[str] = ()

    def connect(self) -> None:
        """Listen to Celery's signals."""
        signals.worker_ready.connect(self._ready, weak=False)
        signals.worker_shutting_down.connect(self._shutting_down, weak=False)

    def watch(self, worker: Any) -> None:
        """Begin to watch the pool of a Celery worker, and its loop."""
        self._queues = list(worker.app.amqp.queues.consume_from)
        watchdog = Watchdog(
            self._slots,
            lease_s=self._services.settings.lease_s,
            record=self._record,
            waiting=self._waiting,
            pool=partial(_pids, worker),
        )
        worker.timer.call_repeatedly(_TICK_EVERY_S, watchdog.tick)
        watchdog.start()

    def _ready(self, **_: Any) -> None:
        self._mark.start()

    def _shutting_down(self, **_: Any) -> None:
        self._slots.drain()
        self._mark.stop()

    def _waiting(self) -> int | None:
        try:
            return sum(int(self._services.redis.llen(name)) for queue in self._queues for name in lists_of(queue))
        except redis.RedisError:
            return None

    def _record(self, killed: Seen) -> None:
        """Write why the step of a killed child ended, where it was asked to; else its lease runs out: a loss."""
        lease = killed.lease
        if lease is None or killed.why not in {"timeout", "cancelled"}:
            return
        until = since_boot() + _RECORD_WITHIN_S

        def decide(seen: Execution) -> Advance:
            step = seen.steps[lease.step]
            if killed.why == "cancelled":
                error = cancelled_error(seen, step)
            else:
                message = f"{step.id} took longer than it may, and its process had to be killed"
                error = RunError("timeout", message, ErrorKind.TIMEOUT, step.agent, step.id, step.claims)
            return fail(seen, lease, error, self._services.clock.now())

        try:
            execution = self._services.store.load(lease.integrator, lease.execution_id)
            if execution is None:
                return
            settled = settle(self._services.store, execution, decide, lease=lease, give_up=lambda: since_boot() > until)
        except LeaseLost:
            return
        except BucketError as away:
            structlog.get_logger().warning("a killed step is left to its lease", reason=away.message)
            return
        if settled is not None:
            told = settled.record.lines_total - len(settled.advance.events)
            self._services.publisher.advanced(settled.record, settled.advance, as_of=settled.as_of, told=told)


def watching_step(parent: Parent) -> type[bootsteps.StartStopStep]:
    """Answer the bootstep that has ``parent`` watch once the pool stands."""

    class Watching(bootsteps.StartStopStep):  # type: ignore[misc]
        """Begins the watchdog."""

        requires = ("celery.worker.components:Pool", "celery.worker.components:Timer")

        def start(self, worker: Any) -> None:
            """Begin."""
            parent.watch(worker)

        def stop(self, worker: Any) -> None:
            """Nothing: the watchdog watches the shutdown too."""

        def terminate(self, worker: Any) -> None:
            """Nothing, as above."""

    return Watching


def _pids(worker: Any) -> set[int]:
    pool = getattr(worker.pool, "_pool", None)
    return {process.pid for process in getattr(pool, "_pool", ())}
