"""The child's thread that stops a step: first by a request, then by an exception, then by the end of the process.

    deadline, cancel or lost lease -> ctx.cancelled -> (grace) -> interrupt, each second for 3 s
        -> the outcome is written -> os._exit -> (10 s) -> the watchdog of the main process kills

An interrupt is a signal to this process's main thread. Its handler raises :class:`StepInterrupted`, and only while
agent code runs, never during a save. Sleep, recv, lock, join and busy loops yield to it. If an agent holds the GIL or
catches the exception, its process ends. A worker that drains hands back a step that is not done in time. Rules:
docs/engine.md, section 6.
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
from worker.supervision import child_processes
from worker.supervision.parking import Parking
from worker.supervision.shared_slots import ChildSlot, SharedSlots

INTERRUPT_SIGNAL: Final = signal.SIGUSR2
INTERRUPTS_MAX: Final = 3
INTERRUPT_EVERY_S: Final = 1.0
KILL_AFTER_S: Final = 10.0
FORCED_STOP_S: Final = INTERRUPTS_MAX * INTERRUPT_EVERY_S + KILL_AFTER_S
TICK_S: Final = 0.2
EXIT_STUCK: Final = 71
PARK_AFTER_TICKS: Final = 5
_MARK_ALIVE_EVERY_S: Final = 1.0


class StepInterrupted(BaseException):
    """Raised into an agent that did not stop on request."""


@dataclass(slots=True)
class RunningStep:
    """One step while it runs: why it is asked to stop, and how far the escalation has gone.

    Times are in seconds since boot; ``stop_reason`` is ``""``, ``timeout``, ``cancelled`` or ``lost``.
    """

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
        """Whether the step's time is up."""
        return boottime_s() >= self.deadline_at


class StepInterrupter:
    """Enforces the limits of the one step that this process runs: time limit, cancel, lost lease, drain."""

    def __init__(self, slots: SharedSlots, slot: ChildSlot, *, grace_s: float, drain_s: float) -> None:
        self._slots = slots
        self._slot = slot
        self._grace_s = grace_s
        self._drain_s = drain_s
        self._lock = threading.Lock()
        self._current: RunningStep | None = None
        self._marked_alive_at = 0.0
        # The watchdog needs signs of life only while agent code runs.
        self._parking = Parking(lambda: self._current is not None, PARK_AFTER_TICKS)

    def start(self, finish: Callable[[RunningStep, str], None]) -> None:
        """Start the thread; call it in a child's main thread, at its first task, after ``install_signal_handler``.

        ``finish`` writes the outcome of a step that does not stop. It is called in the interrupter's thread with the
        reason (``timeout``, ``cancelled``, ``lost`` or ``drained``); the process ends after it, also if it raises.
        """
        self._finish = finish
        threading.Thread(target=self._run, name="step-interrupter", daemon=True).start()

    def install_signal_handler(self) -> None:
        """Install the handler of the interrupt; to be called in the main thread."""
        signal.signal(INTERRUPT_SIGNAL, self._on_interrupt_signal)

    @property
    def is_draining(self) -> bool:
        """Whether the worker shuts down (drains)."""
        return self._slots.drain_began_at > 0

    @property
    def is_drain_over(self) -> bool:
        """Whether the time for the drain is over: the process must end, and the rest is left to the reconciler."""
        began_at = self._slots.drain_began_at
        return began_at > 0 and boottime_s() >= began_at + self._drain_s

    @contextmanager
    def enforce_limits(self, lease: Lease, timeout_s: float, agent: str = "") -> Iterator[RunningStep]:
        """Enforce the limits of a step while the block runs, from its claim until its outcome is written."""
        running_step = RunningStep(lease, boottime_s() + timeout_s)
        self._slot.begin_step(lease, self._kill_at(running_step.deadline_at), agent)
        self._current = running_step
        self._parking.wake()
        try:
            yield running_step
        finally:
            self._current = None
            self._slot.end_step()

    @contextmanager
    def mark_busy(self, lease: Lease) -> Iterator[None]:
        """Show the watchdog that this process is busy, while the block writes the outcomes of ``lease`` and others."""
        self._slot.begin_step(lease, 0.0)
        try:
            yield
        finally:
            self._slot.end_step()

    @contextmanager
    def interruptible(self, running_step: RunningStep) -> Iterator[None]:
        """Allow interrupts of the step while the block, agent code, runs; not beyond it."""
        self._slot.set_in_agent(running=True)  # an interrupt within it would leave it half written
        running_step.is_in_agent = True
        try:
            yield
        finally:
            self.leave_agent(running_step)

    def leave_agent(self, running_step: RunningStep) -> None:
        """Record that agent code does not run any more; may be called twice.

        It never returns if the interrupter's thread has taken over.
        """
        running_step.is_in_agent = False  # before all else: from here on an interrupt finds nothing to interrupt
        with self._lock:
            is_taken_over = running_step.is_taken_over
        if is_taken_over:
            threading.Event().wait()  # the interrupter is writing the outcome, and ends this process after it
        self._slot.set_in_agent(running=False)

    @contextmanager
    def uninterruptible(self, running_step: RunningStep) -> Iterator[None]:
        """Allow no interrupt while agent code waits for the store in the block: it could leave half a write.

        In any other thread than the main thread this does nothing, because interrupts never come there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.leave_agent(running_step)
        try:
            yield
        finally:
            self._slot.set_in_agent(running=True)
            running_step.is_in_agent = True

    def request_stop(self, running_step: RunningStep, reason: str) -> None:
        """Ask a step to stop: by ``ctx.cancelled`` now, by force after the grace; the first reason counts."""
        with self._lock:
            if running_step.stop_reason:
                return
            running_step.stop_reason, running_step.stop_requested_at = reason, boottime_s()
        self._slot.request_stop(reason, self._kill_at(running_step.stop_requested_at))
        running_step.cancel.set()

    def _kill_at(self, stop_requested_at: float) -> float:
        return stop_requested_at + self._grace_s + FORCED_STOP_S

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(TICK_S):
            self._parking.tick()
            try:
                self._tick()
            except Exception:  # noqa: BLE001  (without this thread only the watchdog could stop the step)
                structlog.get_logger().exception("a tick of the step interrupter failed")

    def _tick(self) -> None:
        now = boottime_s()
        if now - self._marked_alive_at >= _MARK_ALIVE_EVERY_S:
            self._slot.mark_alive()
            self._marked_alive_at = now
        running_step = self._current
        if running_step is None:
            return
        if not running_step.stop_reason and now >= running_step.deadline_at:
            self.request_stop(running_step, "timeout")
        if running_step.stop_reason:
            self._escalate(running_step, now)
        if self.is_drain_over:
            self._take_over(running_step, running_step.stop_reason or "drained")

    def _escalate(self, running_step: RunningStep, now: float) -> None:
        due_at = running_step.stop_requested_at + self._grace_s + running_step.interrupts * INTERRUPT_EVERY_S
        if now < due_at or not running_step.is_in_agent:
            return
        if running_step.interrupts < INTERRUPTS_MAX:
            running_step.interrupts += 1
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT_SIGNAL)
        else:
            self._take_over(running_step, running_step.stop_reason)

    def _take_over(self, running_step: RunningStep, reason: str) -> None:
        """Write the outcome in the agent's place, then end the process, which cannot be trusted any more."""
        with self._lock:
            if not running_step.is_in_agent or running_step.is_taken_over:
                return
            running_step.is_taken_over = True
        try:
            for pid in child_processes.children_of(os.getpid()):
                child_processes.kill_tree(pid)
            self._finish(running_step, reason)
        except BaseException:  # noqa: BLE001
            structlog.get_logger().exception("the outcome of a step that did not stop was not written", why=reason)
        finally:
            os._exit(EXIT_STUCK)

    def _on_interrupt_signal(self, *_: object) -> None:
        running_step = self._current
        if running_step is not None and running_step.is_in_agent and not running_step.is_taken_over:
            raise StepInterrupted(running_step.stop_reason)
