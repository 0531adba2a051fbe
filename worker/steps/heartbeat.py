"""The heartbeat thread beside a running step: renews its lease, writes its log lines and progress, refreshes its view.

It also learns of a cancel or a lost lease, and saves decisions that have waited too long.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import redis
import structlog

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError, LeaseLost
from shared.live.signals import cancel_hints
from worker.steps.claims import ClaimedStep
from worker.supervision.parking import Parking

PUBLISH_AFTER_S: Final = 0.05
PUBLISH_RETRY_FACTOR: Final = 1.5
"""The next read for the view of a claim comes at this multiple of the claim's age at the last one.

A majority may not have the claim yet, and then its view must not be shown.
"""
REPORT_EVERY_S: Final = 1.0
TICK_S: Final = 0.025
PARK_AFTER_TICKS: Final = 40


class HeartbeatThread:
    """The one heartbeat thread of a process; a quick step costs it one check and nothing else.

    ``on_tick(now)`` is called at each tick beside a step, after its heartbeat; it must raise nothing.
    """

    def __init__(self, on_tick: Callable[[float], None]) -> None:
        self._on_tick = on_tick
        self._lock = threading.Lock()
        self._current: Heartbeat | None = None
        self._parking = Parking(lambda: self._current is not None, PARK_AFTER_TICKS)

    def start(self) -> None:
        """Begin to tick."""
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    @contextmanager
    def attach(self, heartbeat: Heartbeat) -> Iterator[None]:
        """Tick ``heartbeat`` while the block runs; leaving the block waits for a tick that is under way."""
        self._current = heartbeat
        self._parking.wake()
        try:
            yield
        finally:
            with self._lock:
                self._current = None

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(TICK_S):
            self._parking.tick()
            if self._current is None:
                continue
            with self._lock:
                if self._current is not None:
                    self._current.tick(boottime_s())
                    self._on_tick(boottime_s())


class Heartbeat:
    """Keeps one lease alive while its step runs.

    ``request_stop`` is called with the reason for which the step has to stop: ``lost`` if it has moved on without this
    worker, or ``cancelled``. Earlier decisions of the chain that are not saved yet are saved here once they are due.
    """

    def __init__(self, services: Services, claimed_step: ClaimedStep, request_stop: Callable[[str], None]) -> None:
        self._services = services
        self._store = services.store
        self._publisher = services.publisher
        self._pending_writes = claimed_step.pending_writes
        self._lease = lease = claimed_step.lease
        self._reporter = claimed_step.reporter
        self._heartbeat_s = services.settings.heartbeat_s
        self._request_stop = request_stop
        self._is_lease_lost = False
        self._is_cancel_requested = False
        self._is_published = False
        self._reports_shown = self._pending_writes.reports_stored
        self._began_at = boottime_s()  # before a first read that may wait
        self._publish_due_at = self._began_at + PUBLISH_AFTER_S
        # If the write of the claim waited for the store, the lease is old already and its renewal is due.
        self._renewed_at = self._reported_at = self._began_at - self._lease_age_s(claimed_step)
        self._log = structlog.get_logger().bind(execution_id=lease.execution_id, step=lease.step)

    def tick(self, now: float) -> None:
        """Do what is due at ``now`` (seconds since boot); to be called every :data:`TICK_S`. Raises nothing."""
        if self._is_lease_lost:
            return
        if not self._pending_writes.is_written:
            self._succeeds(lambda: self._pending_writes.write_if_due(now))
            self._is_published = self._pending_writes.is_written  # the write publishes the view too
            return  # this step's own claim may not be stored, so there is nothing yet to keep alive
        if now - self._began_at < PUBLISH_AFTER_S:
            return  # a quick step: its completing write will show it
        if now >= self._publish_due_at and not self._is_published:
            # A majority may not have the claim yet: read again later. If the store does not reply, the report and the
            # renewal below call it again.
            retry_at = self._began_at + PUBLISH_RETRY_FACTOR * (now - self._began_at)
            self._publish_due_at = retry_at if self._succeeds(self._publish_view) else math.inf
        if now - self._reported_at < min(REPORT_EVERY_S, self._heartbeat_s):
            return
        self._reported_at = now
        self._succeeds(self._send_report)
        # A renewal that failed stays due: it is tried again at the next report and not a heartbeat period later.
        is_due = now - self._renewed_at >= self._heartbeat_s or self._is_cancel_hinted()
        if is_due and self._succeeds(self._renew_lease):
            self._renewed_at = now

    def _lease_age_s(self, claimed_step: ClaimedStep) -> float:
        now, ends_at = self._services.clock.now_or_none(), claimed_step.step.due_by
        if now is None or ends_at is None:
            return 0.0
        return max((now - (ends_at - self._services.timings.lease)).total_seconds(), 0.0)

    def _is_cancel_hinted(self) -> bool:
        redis_client = self._services.redis
        try:
            return not self._is_cancel_requested and cancel_hints.has_cancel_hint(
                redis_client, self._lease.execution_id
            )
        except redis.RedisError:
            return False  # the next renewal learns of the cancel

    def _succeeds(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except LeaseLost:
            self._log.warning("the lease is lost; the step goes on elsewhere")
            self._is_lease_lost = True
            self._request_stop("lost")
            return False
        except BucketError as error:
            self._log.warning("the store did not reply to a heartbeat", reason=error.message)
            return False
        except Exception:  # noqa: BLE001
            # If this lasts, the lease runs out and the step is rescued; the thread must live to try again.
            self._log.exception("a heartbeat failed")
            return False
        return True

    def _publish_view(self) -> None:
        as_of = boottime_s()
        record = self._store.read(self._lease.integrator, self._lease.execution_id, outputs=())
        if record is None:
            return
        # The claim is a lock, written with w=1: a majority has it only after the next flush of the journal.
        self._is_published = record.execution.steps[self._lease.step].matches_lease(self._lease)
        if self._is_published:
            self._publisher.publish_view(record, as_of=as_of, published_seq=self._pending_writes.published_seq)
            self._pending_writes.published_seq = record.lines_total

    def _send_report(self) -> None:
        stored = self._pending_writes.reports_stored
        report = self._reporter.take_report()
        if report.is_empty:
            # An agent that makes checkpoints often leaves nothing to report here: show what was stored with them.
            if stored != self._reports_shown:
                self._publish_view()
                self._reports_shown = stored
            return
        as_of = boottime_s()
        try:
            record = self._store.report(self._lease, report)
        except BucketError:
            # It may have been written: a doubled log line harms less than a lost one.
            self._reporter.restore_report(report)
            raise
        if record is None:
            raise LeaseLost
        self._publisher.publish_view(record, as_of=as_of, published_seq=self._pending_writes.published_seq)
        self._pending_writes.published_seq = record.lines_total
        self._is_published = True
        self._reports_shown = stored

    def _renew_lease(self) -> None:
        renewed = self._store.renew(self._lease, self._services.clock.now() + self._services.timings.lease)
        if renewed is None:
            raise LeaseLost
        if renewed.status is ExecutionStatus.CANCELLING and not self._is_cancel_requested:
            self._is_cancel_requested = True
            self._request_stop("cancelled")
        if not self._publisher.extend_view(self._lease.integrator, self._lease.execution_id, renewed.rev):
            self._publish_view()
