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
from shared.clock import since_boot
from shared.domain.execution import Lease
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError, LeaseLost
from shared.live import cancel_hints
from worker.steps.pending_writes import Draft
from worker.steps.reporter import StepReporter

SHOWN_AFTER_S: Final = 0.05
SHOWN_AGAIN: Final = 1.5
"""By how much longer after the claim than the last one the next look comes that may find it a majority's."""
REPORT_EVERY_S: Final = 1.0
TICK_S: Final = 0.025
PARKED_AFTER: Final = 40


class Companion:
    """The one thread of a process that ticks its heartbeats; a quick step costs it nothing but a look.

    ``also`` is called at each tick beside a step, after its heartbeat; it raises nothing.
    """

    def __init__(self, also: Callable[[float], None] = lambda _: None) -> None:
        self._also = also
        self._lock = threading.Lock()
        self._current: Heartbeat | None = None
        self._wanted = threading.Event()
        self._parked = False

    def start(self) -> None:
        """Begin to tick."""
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    @contextmanager
    def beside(self, heartbeat: Heartbeat) -> Iterator[Heartbeat]:
        """Tick ``heartbeat`` while the block runs, and not beyond it: a tick under way is waited for."""
        self._current = heartbeat
        if self._parked:
            self._wanted.set()
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
            if idle >= PARKED_AFTER:
                self._park()
                idle = 0
            if self._current is None:
                continue
            with self._lock:
                if self._current is not None:
                    self._current.tick(since_boot())
                    self._also(since_boot())

    def _park(self) -> None:
        """Wait, without a tick, until a step wants to be kept: an idle process costs nothing."""
        self._wanted.clear()
        self._parked = True
        if self._current is None:  # after the flag: a step that begins from here on sees it and sets the event
            self._wanted.wait()
        self._parked = False


class Heartbeat:
    """Keeps one lease alive while its step runs.

    ``stop`` is told why the step has to stop: ``lost`` once it has moved on without us, or ``cancelled``. What the
    chain has decided before this step and not written yet is written here, once it is due.
    """

    def __init__(
        self,
        services: Services,
        draft: Draft,
        lease: Lease,
        reporter: StepReporter,
        *,
        stop: Callable[[str], None],
    ) -> None:
        self._draft = draft
        self._store = services.store
        self._publisher = services.publisher
        self._clock = services.clock
        self._redis = services.redis
        self._lease = lease
        self._reporter = reporter
        self._lease_s = services.settings.lease_s
        self._heartbeat_s = services.settings.heartbeat_s
        self._stop = stop
        self._lost = False
        self._cancelling = False
        self._is_shown = False
        self._began_at = self._renewed_at = since_boot()  # by the claim, before a first read that may wait
        self._show_from = self._began_at + SHOWN_AFTER_S
        self._reported_at = self._began_at
        self._log = structlog.get_logger().bind(execution_id=lease.execution_id, step=lease.step)

    def tick(self, now: float) -> None:
        """Do what is due at ``now`` seconds since boot; to be called every :data:`TICK_S`. Raises nothing."""
        if self._lost:
            return
        if not self._draft.is_written:
            self._attempt(lambda: self._draft.write_if_due(now))
            self._is_shown = self._draft.is_written  # by the very write
            return  # this step's own claim may not be stored, so there is nothing yet to keep alive
        if now - self._began_at < SHOWN_AFTER_S:
            return  # a quick step: its completing write will show it
        if now >= self._show_from and not self._is_shown:
            # A majority may not have the claim yet; a store that does not answer is asked by what follows.
            age_s = now - self._began_at
            self._show_from = self._began_at + SHOWN_AGAIN * age_s if self._attempt(self._show) else math.inf
        if now - self._reported_at < min(REPORT_EVERY_S, self._heartbeat_s):
            return
        self._reported_at = now
        self._attempt(self._report)
        # One that failed stays due, so that it is tried again at the next report and not a period later.
        due = now - self._renewed_at >= self._heartbeat_s or self._is_cancel_hinted()
        if due and self._attempt(self._renew):
            self._renewed_at = now

    def _is_cancel_hinted(self) -> bool:
        try:
            return not self._cancelling and cancel_hints.is_hinted(self._redis, self._lease.execution_id)
        except redis.RedisError:
            return False  # the next renewal brings it

    def _attempt(self, beat: Callable[[], None]) -> bool:
        try:
            beat()
        except LeaseLost:
            self._lose()
            return False
        except BucketError as away:
            self._log.warning("a heartbeat was not answered", reason=away.message)
            return False
        except Exception:  # noqa: BLE001
            # The lease runs out then and the step is rescued; the thread must live to try again.
            self._log.exception("a heartbeat failed")
            return False
        return True

    def _lose(self) -> None:
        self._log.warning("the lease is lost; the step goes on elsewhere")
        self._lost = True
        self._stop("lost")

    def _show(self) -> None:
        as_of = since_boot()
        record = self._store.read(self._lease.integrator, self._lease.execution_id, outputs=())
        if record is None:
            return
        # The claim is a lock, written alone: a majority has it only once the next journal is flushed.
        self._is_shown = record.execution.steps[self._lease.step].was_under(self._lease)
        if self._is_shown:
            self._publisher.shown(record, as_of=as_of, told=self._draft.told)
            self._draft.told = record.lines_total

    def _report(self) -> None:
        report = self._reporter.take()
        if report.is_empty:
            return
        as_of = since_boot()
        try:
            record = self._store.report(self._lease, report)
        except BucketError:
            # It may have been written: a line told twice harms less than one told never.
            self._reporter.put_back(report)
            raise
        if record is None:
            self._lose()
            return
        self._publisher.shown(record, as_of=as_of, told=self._draft.told)
        self._draft.told = record.lines_total
        self._is_shown = True

    def _renew(self) -> None:
        beat = self._store.renew(self._lease, self._clock.now() + timedelta(seconds=self._lease_s))
        if beat is None:
            self._lose()
            return
        if beat.status is ExecutionStatus.CANCELLING and not self._cancelling:
            self._cancelling = True
            self._stop("cancelled")
        if not self._publisher.kept(self._lease.execution_id, beat.rev):
            self._show()
