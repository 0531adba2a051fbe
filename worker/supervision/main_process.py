"""The part of a worker's main process that is not Celery's: presence in Redis, the drain flag, the watchdog."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

import redis
import structlog
from celery import bootsteps, signals

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.definitions.unavailability import Unavailability
from shared.domain.execution import ErrorKind, Execution, RunError
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.domain.lifecycle.transitions import fail
from shared.errors import BucketError, LeaseLost
from shared.live.presence.presence_entry import RunningSlot, WorkerInfo
from shared.live.presence.worker_presence import WorkerPresence
from shared.queue.message import list_keys
from shared.store.executions.settle import retry_until_reply, settle
from worker.supervision.shared_slots import SharedSlots, SlotState
from worker.supervision.watchdog import Watchdog

_RECORD_TIMEOUT_S: Final = 60.0
_TICK_EVERY_S: Final = 1.0


class MainProcess:
    """Supervises one worker from its main process; Celery's signals and a bootstep call it."""

    def __init__(
        self, services: Services, slots: SharedSlots, unavailable: Mapping[str, Unavailability] = MappingProxyType({})
    ) -> None:
        """``unavailable`` are the agents that this worker cannot run."""
        self._services = services
        self._slots = slots
        self._host = socket.gethostname()
        name = f"{self._host}:{os.getpid()}"
        self._presence = WorkerPresence(services.redis, name, unavailable, self._describe)
        self._queues: Sequence[str] = ()
        self._info: WorkerInfo | None = None

    def connect_signals(self) -> None:
        """Connect to Celery's signals: presence begins when the worker is ready; SIGTERM sets the drain flag."""
        signals.worker_ready.connect(lambda **_: self._presence.start(), weak=False)
        signals.worker_shutting_down.connect(self._on_worker_shutting_down, weak=False)
        signals.worker_before_create_process.connect(_freeze_before_first_fork)

    def start_watchdog(self, worker: Any) -> None:
        """Start the watchdog of a Celery worker's pool and event loop, and replace children that have ended."""
        self._queues = list(worker.app.amqp.queues.consume_from)
        self._info = WorkerInfo(
            self._host,
            os.getpid(),
            version("bucket"),
            tuple(name for name in QUEUE_NAMES if name in self._queues),
            worker.concurrency,
            int(time.time() * 1_000),
        )
        watchdog = Watchdog(
            self._slots,
            lease_s=self._services.settings.lease_s,
            record_killed=self._record_killed_step,
            backlog_size=self._backlog_size,
            pool_pids=partial(_own_pids, worker),
        )

        def tick() -> None:
            watchdog.tick()
            # Celery may learn of a child's end a moment too early, then not for 5 s, while messages wait in its pipe.
            worker.pool.maintain_pool()

        worker.timer.call_repeatedly(_TICK_EVERY_S, tick)
        watchdog.start()

    def _describe(self) -> WorkerInfo | None:
        """Return what this worker says about itself; a slot that only writes outcomes runs no step."""
        if self._info is None:
            return None
        running = (
            RunningSlot(state.lease.integrator, state.lease.execution_id, state.lease.step, state.agent, state.since_ms)
            for state in self._slots.read_states()
            if state.lease is not None and state.agent
        )
        return replace(self._info, running=tuple(running))

    def _on_worker_shutting_down(self, **_: Any) -> None:
        self._slots.begin_drain()
        self._presence.stop()

    def _backlog_size(self) -> int | None:
        pipe = self._services.redis.pipeline(transaction=False)
        for name in chain.from_iterable(map(list_keys, self._queues)):
            pipe.llen(name)
        try:
            return sum(map(int, pipe.execute()))
        except redis.RedisError:
            return None

    def _record_killed_step(self, killed: SlotState) -> None:
        """Record ``timeout`` or ``cancelled`` for the step of a killed child; tries for 60 s.

        If the step was not asked to stop for one of these, its lease runs out and counts as a loss.
        """
        lease = killed.lease
        if lease is None or killed.stop_reason not in {"timeout", "cancelled"}:
            return
        services, give_up_at = self._services, boottime_s() + _RECORD_TIMEOUT_S

        def give_up() -> bool:
            return boottime_s() > give_up_at

        def decide(current: Execution) -> Decision:
            step = current.steps[lease.step]
            if killed.stop_reason == "cancelled":
                error = cancelled_error(current, step)
            else:
                message = f"{step.id} took longer than it may, and its process had to be killed"
                error = RunError("timeout", message, ErrorKind.TIMEOUT, step.agent, step.id, step.claims)
            return fail(current, lease, error, services.clock.now())

        try:
            load = partial(services.store.load, lease.integrator, lease.execution_id)
            execution = retry_until_reply(load, give_up)
            if execution is None:
                return
            settled = settle(services.store, execution, decide, lease=lease, give_up=give_up)
        except LeaseLost:
            return
        except BucketError as exception:
            structlog.get_logger().warning("a killed step is left to its lease", reason=exception.message)
            return
        if settled is not None:
            published_seq = settled.record.lines_total - len(settled.decision.events)
            services.publisher.publish_decision(
                settled.record, settled.decision, as_of=settled.save_started_at_s, published_seq=published_seq
            )


def watchdog_bootstep(main_process: MainProcess) -> type[bootsteps.StartStopStep]:
    """Return the Celery bootstep by which ``main_process`` starts its watchdog after the pool has started."""

    class Watching(bootsteps.StartStopStep):  # type: ignore[misc]
        """Starts the watchdog, and never stops it: it watches the shutdown too."""

        requires = ("celery.worker.components:Pool", "celery.worker.components:Timer")

        def start(self, worker: Any) -> None:
            """Start it."""
            main_process.start_watchdog(worker)

    return Watching


def _freeze_before_first_fork(**_: Any) -> None:
    """Exempt all that is loaded from garbage collection: a collection writes to each object, which copies its page.

    Once only: what is garbage at a later fork, such as the records of a child that has ended, must be freed.
    """
    signals.worker_before_create_process.disconnect(_freeze_before_first_fork)
    gc.collect()
    gc.freeze()


def _own_pids(worker: Any) -> set[int]:
    """Return the pids of the pool's children and of the embedded reconciler: all others are orphans."""
    pool = getattr(worker.pool, "_pool", None)
    own = (*getattr(pool, "_pool", ()), getattr(worker, "reconciler", None))
    return {process.pid for process in own if process is not None}
