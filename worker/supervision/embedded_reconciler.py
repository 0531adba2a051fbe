"""The reconciler as a child of a worker's main process, whose memory it shares: ``python -m worker --reconciler``.

It is forked when all is loaded, and so takes half of the memory of a process of its own. It is not of Celery's pool:
if it ends it is started again, it is stopped before the pool, and it never outlives the main process.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any, Final

import structlog
from billiard import Process
from celery import bootsteps, signals

CHECK_EVERY_S: Final = 1.0
_STOP_WITHIN_S: Final = 2.0
_PR_SET_PDEATHSIG: Final = 1
# What Celery handles in the main process; its handlers must not run in the child.
_SIGNALS_OF_CELERY: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2
)  # fmt: skip


class EmbeddedReconciler:
    """A child process that calls ``serve``, and another one after its end.

    Use it from the main thread alone: the kernel ends a child with the *thread* that has forked it.
    """

    def __init__(self, serve: Callable[[], None]) -> None:
        self._serve = serve
        self._child: Any = None
        self._is_stopping = False

    @property
    def pid(self) -> int | None:
        """The id of the present child, or of the last one."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Fork the child."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_OF_CELERY)
        try:
            self._child = Process(target=self._run_child, args=(os.getpid(), mask), name="reconciler")
            self._child.daemon = True  # billiard ends it too if the main process exits without ``stop``
            self._child.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def restart_if_ended(self) -> None:
        """Fork another child if this one has ended; called once a second, so one that fails always is no busy loop."""
        if not self._is_stopping and not self._child.is_alive():
            structlog.get_logger().error("the reconciler has ended: another is started", exit_code=self._child.exitcode)
            self.start()

    def expect_end(self, **_: Any) -> None:
        """Start no other child from now on: a signal that stops the worker may have reached the child too."""
        self._is_stopping = True

    def stop(self) -> None:
        """Ask the child to end, and kill it after 2 s, which loses nothing: another reconciler goes on."""
        self._is_stopping = True
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._child.is_alive():
                os.kill(self._child.pid, number)
                self._child.join(_STOP_WITHIN_S)

    def _run_child(self, parent: int, mask: set[signal.Signals]) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return  # it has ended before the kernel was told
        for number in _SIGNALS_OF_CELERY:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._serve()


def reconciler_bootstep(serve: Callable[[], None]) -> type[bootsteps.StartStopStep]:
    """Return the Celery bootstep that runs ``serve`` in an embedded reconciler, as Celery's own one embeds its beat."""

    class Reconciling(bootsteps.StartStopStep):  # type: ignore[misc]
        """Starts it after the pool, which first exempts all that is loaded from garbage collection."""

        requires = ("celery.worker.components:Pool", "celery.worker.components:Timer")

        def create(self, worker: Any) -> EmbeddedReconciler:
            """Build it; ``worker.reconciler`` is how the watchdog knows that it is no orphan."""
            worker.reconciler = reconciler = EmbeddedReconciler(serve)
            worker.timer.call_repeatedly(CHECK_EVERY_S, reconciler.restart_if_ended)
            signals.worker_shutting_down.connect(reconciler.expect_end, weak=False)
            return reconciler

    return Reconciling
