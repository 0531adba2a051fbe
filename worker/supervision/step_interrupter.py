"""The child's thread that makes a step stop: first by asking, then by an exception, then by ending the process.

    deadline, cancel or lost lease -> ctx.cancelled -> (grace) -> interrupt, each second for 3 s
        -> the outcome is written -> os._exit -> (10 s) -> the watchdog of the main process kills

An interrupt is a signal to this process's main thread whose handler raises :class:`StepInterrupted`, and only while
agent code runs: never within a save. Sleep, recv, lock, join and busy loops give way to it; an agent that holds the
GIL, or that swallows it, is ended with its process. A worker that drains hands a step back that is not done in time.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.clock import boottime_s
from shared.domain.execution import Lease
from worker.supervision.shared_slots import ChildSlot, SharedSlots

INTERRUPT_SIGNAL: Final = signal.SIGUSR2
INTERRUPTS_MAX: Final = 3
INTERRUPT_EVERY_S: Final = 1.0
KILL_AFTER_S: Final = 10.0
FORCED_STOP_S: Final = INTERRUPTS_MAX * INTERRUPT_EVERY_S + KILL_AFTER_S
TICK_S: Final = 0.2
EXIT_STUCK: Final = 71
_MARK_ALIVE_EVERY_S: Final = 1.0


class StepInterrupted(BaseException):
    """Raised into an agent that did not stop when it was asked to."""


@dataclass(slots=True)
class RunningStep:
    """One step while it runs: why it is asked to stop, and how far that has gone."""

    lease: Lease
    deadline_at: float
    cancel: threading.Event = field(default_factory=threading.Event)
    stop_reason: str = ""
    stop_requested_at: float = 0.0
    interrupts: int = 0
    is_in_agent: bool = False
    is_taken_over: bool = False

    @property
    def is_past_deadline(self) -> bool:
        """True once the step's time is up."""
        return boottime_s() >= self.deadline_at


class StepInterrupter:
    """Minds the one step that this process runs; ``finish`` writes the outcome of a step that will not stop.

    ``finish`` is called in the minder's thread with why the step had to stop (``timeout``, ``cancelled``, ``lost`` or
    ``drained``); the process ends after it, whatever it raises.
    """

    def __init__(
        self,
        slots: SharedSlots,
        slot: ChildSlot,
        *,
        grace_s: float,
        drain_s: float,
        finish: Callable[[RunningStep, str], None],
    ) -> None:
        self._slots = slots
        self._slot = slot
        self._grace_s = grace_s
        self._drain_s = drain_s
        self._finish = finish
        self._lock = threading.Lock()
        self._current: RunningStep | None = None
        self._marked_alive_at = 0.0

    def start(self) -> None:
        """Take the signal and begin; to be called in the main thread of a child, at its first task."""
        signal.signal(INTERRUPT_SIGNAL, self._on_interrupt_signal)
        threading.Thread(target=self._run, name="minder", daemon=True).start()

    @property
    def is_draining(self) -> bool:
        """True once the worker was told to shut down."""
        return self._slots.drain_began_at > 0

    @property
    def is_drain_over(self) -> bool:
        """True once what is not done by now is to be left to the reconciler: the process must end."""
        since = self._slots.drain_began_at
        return since > 0 and boottime_s() >= since + self._drain_s

    @contextmanager
    def enforce_limits(self, lease: Lease, timeout_s: float) -> Iterator[RunningStep]:
        """Mind a step from its claim until its outcome is written."""
        minded = RunningStep(lease, boottime_s() + timeout_s)
        self._slot.begin_step(lease, self._kill_at(minded.deadline_at))
        self._current = minded
        try:
            yield minded
        finally:
            self._current = None
            self._slot.end_step()

    @contextmanager
    def mark_busy(self, lease: Lease) -> Iterator[None]:
        """Let the watchdog see that this process is busy, while the block writes what came of ``lease`` and others."""
        self._slot.begin_step(lease, 0.0)
        try:
            yield
        finally:
            self._slot.end_step()

    @contextmanager
    def interruptible(self, minded: RunningStep) -> Iterator[None]:
        """Let the step be interrupted while the block runs, and not beyond it."""
        self._slot.set_in_agent(running=True)  # an interrupt within it would leave it half written
        minded.is_in_agent = True
        try:
            yield
        finally:
            self.leave_agent(minded)

    def leave_agent(self, minded: RunningStep) -> None:
        """Note that agent code runs no more; may be said again. Never returns where the minder has taken over."""
        minded.is_in_agent = False  # before all else: from here on an interrupt finds nothing to interrupt
        with self._lock:
            taken_over = minded.is_taken_over
        if taken_over:
            threading.Event().wait()  # the minder is writing the outcome, and ends this process after it
        self._slot.set_in_agent(running=False)

    @contextmanager
    def uninterruptible(self, minded: RunningStep) -> Iterator[None]:
        """Let no interrupt come while agent code waits in the block for the store: it could leave half a write.

        In another thread than the main one nothing needs to be done, for interrupts never come there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.leave_agent(minded)
        try:
            yield
        finally:
            self._slot.set_in_agent(running=True)
            minded.is_in_agent = True

    def request_stop(self, minded: RunningStep, reason: str) -> None:
        """Ask a step to stop: by ``ctx.cancelled`` now, by force after the grace."""
        with self._lock:
            if minded.stop_reason:
                return
            minded.stop_reason, minded.stop_requested_at = reason, boottime_s()
        self._slot.request_stop(reason, self._kill_at(minded.stop_requested_at))
        minded.cancel.set()

    def _kill_at(self, asked_at: float) -> float:
        return asked_at + self._grace_s + FORCED_STOP_S

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(TICK_S):
            try:
                self._tick()
            except Exception:  # noqa: BLE001  (a minder that ends leaves the step to the watchdog alone)
                structlog.get_logger().exception("the minder stumbled")

    def _tick(self) -> None:
        now = boottime_s()
        if now - self._marked_alive_at >= _MARK_ALIVE_EVERY_S:
            self._slot.mark_alive()
            self._marked_alive_at = now
        minded = self._current
        if minded is None:
            return
        if not minded.stop_reason and now >= minded.deadline_at:
            self.request_stop(minded, "timeout")
        if minded.stop_reason:
            self._escalate(minded, now)
        if self.is_drain_over:
            self._take_over(minded, minded.stop_reason or "drained")

    def _escalate(self, minded: RunningStep, now: float) -> None:
        due = minded.stop_requested_at + self._grace_s + minded.interrupts * INTERRUPT_EVERY_S
        if now < due or not minded.is_in_agent:
            return
        if minded.interrupts < INTERRUPTS_MAX:
            minded.interrupts += 1
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT_SIGNAL)
        else:
            self._take_over(minded, minded.stop_reason)

    def _take_over(self, minded: RunningStep, reason: str) -> None:
        """Write the outcome in the agent's place and end the process, which cannot be trusted any more."""
        with self._lock:
            if not minded.is_in_agent or minded.is_taken_over:
                return
            minded.is_taken_over = True
        try:
            self._finish(minded, reason)
        except BaseException:  # noqa: BLE001
            structlog.get_logger().exception("the outcome of a step that would not stop was not written", why=reason)
        finally:
            os._exit(EXIT_STUCK)

    def _on_interrupt_signal(self, *_: object) -> None:
        minded = self._current
        if minded is not None and minded.is_in_agent and not minded.is_taken_over:
            raise StepInterrupted(minded.stop_reason)
