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

from shared.clock import since_boot
from shared.domain.execution import Lease
from worker.supervision.shared_slots import Slot, Slots

INTERRUPT: Final = signal.SIGUSR2
INTERRUPTS: Final = 3
INTERRUPT_EVERY_S: Final = 1.0
KILLED_AFTER_S: Final = 10.0
FORCE_S: Final = INTERRUPTS * INTERRUPT_EVERY_S + KILLED_AFTER_S
TICK_S: Final = 0.2
EXIT_STUCK: Final = 71
_BEATS_EVERY_S: Final = 1.0


class StepInterrupted(BaseException):
    """Raised into an agent that did not stop when it was asked to."""


@dataclass(slots=True)
class Minded:
    """One step while it runs: why it is asked to stop, and how far that has gone."""

    lease: Lease
    deadline_at: float
    cancel: threading.Event = field(default_factory=threading.Event)
    why: str = ""
    asked_at: float = 0.0
    interrupts: int = 0
    in_agent: bool = False
    taken_over: bool = False

    @property
    def is_late(self) -> bool:
        """True once the step's time is up."""
        return since_boot() >= self.deadline_at


class Minder:
    """Minds the one step that this process runs; ``finish`` writes the outcome of a step that will not stop.

    ``finish`` is called in the minder's thread with why the step had to stop (``timeout``, ``cancelled``, ``lost`` or
    ``drained``); the process ends after it, whatever it raises.
    """

    def __init__(
        self, slots: Slots, slot: Slot, *, grace_s: float, drain_s: float, finish: Callable[[Minded, str], None]
    ) -> None:
        self._slots = slots
        self._slot = slot
        self._grace_s = grace_s
        self._drain_s = drain_s
        self._finish = finish
        self._lock = threading.Lock()
        self._current: Minded | None = None
        self._beaten_at = 0.0

    def start(self) -> None:
        """Take the signal and begin; to be called in the main thread of a child, at its first task."""
        signal.signal(INTERRUPT, self._interrupted)
        threading.Thread(target=self._run, name="minder", daemon=True).start()

    @property
    def is_draining(self) -> bool:
        """True once the worker was told to shut down."""
        return self._slots.draining_since > 0

    @property
    def is_drain_over(self) -> bool:
        """True once what is not done by now is to be left to the reconciler: the process must end."""
        since = self._slots.draining_since
        return since > 0 and since_boot() >= since + self._drain_s

    @contextmanager
    def minding(self, lease: Lease, timeout_s: float) -> Iterator[Minded]:
        """Mind a step from its claim until its outcome is written."""
        minded = Minded(lease, since_boot() + timeout_s)
        self._slot.enter(lease, self._kill_at(minded.deadline_at))
        self._current = minded
        try:
            yield minded
        finally:
            self._current = None
            self._slot.leave()

    @contextmanager
    def writing(self, lease: Lease) -> Iterator[None]:
        """Let the watchdog see that this process is busy, while the block writes what came of ``lease`` and others."""
        self._slot.enter(lease, 0.0)
        try:
            yield
        finally:
            self._slot.leave()

    @contextmanager
    def agent_code(self, minded: Minded) -> Iterator[None]:
        """Let the step be interrupted while the block runs, and not beyond it."""
        self._slot.set_in_agent(running=True)  # an interrupt within it would leave it half written
        minded.in_agent = True
        try:
            yield
        finally:
            self.left(minded)

    def left(self, minded: Minded) -> None:
        """Note that agent code runs no more; may be said again. Never returns where the minder has taken over."""
        minded.in_agent = False  # before all else: from here on an interrupt finds nothing to interrupt
        with self._lock:
            taken_over = minded.taken_over
        if taken_over:
            threading.Event().wait()  # the minder is writing the outcome, and ends this process after it
        self._slot.set_in_agent(running=False)

    @contextmanager
    def serving(self, minded: Minded) -> Iterator[None]:
        """Let no interrupt come while agent code waits in the block for the store: it could leave half a write.

        In another thread than the main one nothing needs to be done, for interrupts never come there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.left(minded)
        try:
            yield
        finally:
            self._slot.set_in_agent(running=True)
            minded.in_agent = True

    def ask(self, minded: Minded, why: str) -> None:
        """Ask a step to stop: by ``ctx.cancelled`` now, by force after the grace."""
        with self._lock:
            if minded.why:
                return
            minded.why, minded.asked_at = why, since_boot()
        self._slot.ask(why, self._kill_at(minded.asked_at))
        minded.cancel.set()

    def _kill_at(self, asked_at: float) -> float:
        return asked_at + self._grace_s + FORCE_S

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(TICK_S):
            try:
                self._tick()
            except Exception:  # noqa: BLE001  (a minder that ends leaves the step to the watchdog alone)
                structlog.get_logger().exception("the minder stumbled")

    def _tick(self) -> None:
        now = since_boot()
        if now - self._beaten_at >= _BEATS_EVERY_S:
            self._slot.beat()
            self._beaten_at = now
        minded = self._current
        if minded is None:
            return
        if not minded.why and now >= minded.deadline_at:
            self.ask(minded, "timeout")
        if minded.why:
            self._press(minded, now)
        if self.is_drain_over:
            self._take_over(minded, minded.why or "drained")

    def _press(self, minded: Minded, now: float) -> None:
        due = minded.asked_at + self._grace_s + minded.interrupts * INTERRUPT_EVERY_S
        if now < due or not minded.in_agent:
            return
        if minded.interrupts < INTERRUPTS:
            minded.interrupts += 1
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)
        else:
            self._take_over(minded, minded.why)

    def _take_over(self, minded: Minded, why: str) -> None:
        """Write the outcome in the agent's place and end the process, which cannot be trusted any more."""
        with self._lock:
            if not minded.in_agent or minded.taken_over:
                return
            minded.taken_over = True
        try:
            self._finish(minded, why)
        except BaseException:  # noqa: BLE001
            structlog.get_logger().exception("the outcome of a step that would not stop was not written", why=why)
        finally:
            os._exit(EXIT_STUCK)

    def _interrupted(self, *_: object) -> None:
        minded = self._current
        if minded is not None and minded.in_agent and not minded.taken_over:
            raise StepInterrupted(minded.why)
