"""The thread beside a running step: renews its lease, takes its lines and progress along, keeps its view true."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import redis
import structlog

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Lease
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError, LeaseLost
from shared.live import cancel_hints
from worker.steps.pending_writes import PendingWrites
from worker.steps.reporter import StepReporter

PUBLISH_AFTER_S: Final = 0.05
PUBLISH_RETRY_FACTOR: Final = 1.5
"""By how much longer after the claim than the last one the next look comes that may find it a majority's."""
REPORT_EVERY_S: Final = 1.0
TICK_S: Final = 0.025
PARK_AFTER_TICKS: Final = 40


class HeartbeatThread:
    """The one thread of a process that ticks its heartbeats; a quick step costs it nothing but a look.

    ``also`` is called at each tick beside a step, after its heartbeat; it raises nothing.
    """

    def __init__(self, on_tick: Callable[[float], None] = lambda _: None) -> None:
        self._on_tick = on_tick
        self._lock = threading.Lock()
        self._current: Heartbeat | None = None
        self._wake_up = threading.Event()
        self._is_parked = False

    def start(self) -> None:
        """Begin to tick."""
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    @contextmanager
    def attach(self, heartbeat: Heartbeat) -> Iterator[Heartbeat]:
        """Tick ``heartbeat`` while the block runs, and not beyond it: a tick under way is waited for."""
        self._current = heartbeat
        if self._is_parked:
            self._wake_up.set()
        try:
            yield heartbeat
        finally:
            with self._lock:
                self._current = None

    def _run(self) -> None:
        pause = threading.Event()
        idle = 0
        while not pause.wait(TICK_S):
            idle = idle + 1 if self._current is None else 0
            if idle >= PARK_AFTER_TICKS:
                self._park()
                idle = 0
            if self._current is None:
                continue
            with self._lock:
                if self._current is not None:
                    self._current.tick(boottime_s())
                    self._on_tick(boottime_s())

    def _park(self) -> None:
        """Wait, without a tick, until a step wants to be kept: an idle process costs nothing."""
        self._wake_up.clear()
        self._is_parked = True
        if self._current is None:  # after the flag: a step that begins from here on sees it and sets the event
            self._wake_up.wait()
        self._is_parked = False


class Heartbeat:
    """Keeps one lease alive while its step runs.

    ``stop`` is told why the step has to stop: ``lost`` once it has moved on without us, or ``cancelled``. What the
    chain has decided before this step and not written yet is written here, once it is due.
    """

    def __init__(
        self,
        services: Services,
        draft: PendingWrites,
        lease: Lease,
        reporter: StepReporter,
        *,
        request_stop: Callable[[str], None],
    ) -> None:
        self._pending_writes = draft
        self._store = services.store
        self._publisher = services.publisher
        self._clock = services.clock
        self._redis = services.redis
        self._lease = lease
        self._reporter = reporter
        self._lease_s = services.settings.lease_s
        self._heartbeat_s = services.settings.heartbeat_s
        self._request_stop = request_stop
        self._is_lease_lost = False
        self._is_cancel_requested = False
        self._is_published = False
        self._began_at = self._renewed_at = boottime_s()  # by the claim, before a first read that may wait
        self._publish_due_at = self._began_at + PUBLISH_AFTER_S
        self._reported_at = self._began_at
        self._log = structlog.get_logger().bind(execution_id=lease.execution_id, step=lease.step)

    def tick(self, now: float) -> None:
        """Do what is due at ``now`` seconds since boot; to be called every :data:`TICK_S`. Raises nothing."""
        if self._is_lease_lost:
            return
        if not self._pending_writes.is_written:
            self._succeeds(lambda: self._pending_writes.write_if_due(now))
            self._is_published = self._pending_writes.is_written  # by the very write
            return  # this step's own claim may not be stored, so there is nothing yet to keep alive
        if now - self._began_at < PUBLISH_AFTER_S:
            return  # a quick step: its completing write will show it
        if now >= self._publish_due_at and not self._is_published:
            # A majority may not have the claim yet; a store that does not answer is asked by what follows.
            age_s = now - self._began_at
            self._publish_due_at = (
                self._began_at + PUBLISH_RETRY_FACTOR * age_s if self._succeeds(self._publish_view) else math.inf
            )
        if now - self._reported_at < min(REPORT_EVERY_S, self._heartbeat_s):
            return
        self._reported_at = now
        self._succeeds(self._send_report)
        # One that failed stays due, so that it is tried again at the next report and not a period later.
        due = now - self._renewed_at >= self._heartbeat_s or self._is_cancel_hinted()
        if due and self._succeeds(self._renew_lease):
            self._renewed_at = now

    def _is_cancel_hinted(self) -> bool:
        try:
            return not self._is_cancel_requested and cancel_hints.has_cancel_hint(self._redis, self._lease.execution_id)
        except redis.RedisError:
            return False  # the next renewal brings it

    def _succeeds(self, beat: Callable[[], None]) -> bool:
        try:
            beat()
        except LeaseLost:
            self._on_lease_lost()
            return False
        except BucketError as away:
            self._log.warning("a heartbeat was not answered", reason=away.message)
            return False
        except Exception:  # noqa: BLE001
            # The lease runs out then and the step is rescued; the thread must live to try again.
            self._log.exception("a heartbeat failed")
            return False
        return True

    def _on_lease_lost(self) -> None:
        self._log.warning("the lease is lost; the step goes on elsewhere")
        self._is_lease_lost = True
        self._request_stop("lost")

    def _publish_view(self) -> None:
        as_of = boottime_s()
        record = self._store.read(self._lease.integrator, self._lease.execution_id, outputs=())
        if record is None:
            return
        # The claim is a lock, written alone: a majority has it only once the next journal is flushed.
        self._is_published = record.execution.steps[self._lease.step].matches_lease(self._lease)
        if self._is_published:
            self._publisher.publish_view(record, as_of=as_of, published_seq=self._pending_writes.published_seq)
            self._pending_writes.published_seq = record.lines_total

    def _send_report(self) -> None:
        report = self._reporter.take_report()
        if report.is_empty:
            return
        as_of = boottime_s()
        try:
            record = self._store.report(self._lease, report)
        except BucketError:
            # It may have been written: a line told twice harms less than one told never.
            self._reporter.restore_report(report)
            raise
        if record is None:
            self._on_lease_lost()
            return
        self._publisher.publish_view(record, as_of=as_of, published_seq=self._pending_writes.published_seq)
        self._pending_writes.published_seq = record.lines_total
        self._is_published = True

    def _renew_lease(self) -> None:
        beat = self._store.renew(self._lease, self._clock.now() + timedelta(seconds=self._lease_s))
        if beat is None:
            self._on_lease_lost()
            return
        if beat.status is ExecutionStatus.CANCELLING and not self._is_cancel_requested:
            self._is_cancel_requested = True
            self._request_stop("cancelled")
        if not self._publisher.extend_view(self._lease.execution_id, beat.rev):
            self._publish_view()
