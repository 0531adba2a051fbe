"""The main process's last resort: kills children that are stuck, and ends the worker where Celery's loop is.

It needs no store to act. It counts its own looks and not the clock, for a process that was frozen and thawed is not a
stuck one. What an agent started dies with its child: the worker adopts it (as a subreaper) and ends it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from shared.clock import boottime_s
from worker.supervision.shared_slots import SharedSlots, SlotState
from worker.supervision.step_interrupter import FORCED_STOP_S

CHECK_EVERY_S: Final = 1.0
LOOP_STALLED_CHECKS_MAX: Final = 30
IDLE_CHECKS_MAX: Final = 60
LATE_CHECKS_MAX: Final = 3
EXIT_STUCK: Final = 70
_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(slots=True)
class _ChildHistory:
    """What the looks at one child have seen so far."""

    alive_count: int = -1
    unresponsive_checks: int = 0
    late_checks: int = 0


class Watchdog:
    """Looks each second from a thread of its own.

    ``record`` is told, in another thread, of a killed child whose step was late; ``waiting`` answers how many
    messages wait (None where Redis does not say); ``pool`` the pids of Celery's children.
    """

    def __init__(
        self,
        slots: SharedSlots,
        *,
        lease_s: float,
        record_killed: Callable[[SlotState], None],
        backlog_size: Callable[[], int | None],
        pool_pids: Callable[[], set[int]],
    ) -> None:
        self._slots = slots
        self._unresponsive_checks_max = max(3, round(lease_s / CHECK_EVERY_S))
        self._record_killed = record_killed
        self._backlog_size = backlog_size
        self._pool_pids = pool_pids
        self._histories: dict[int, _ChildHistory] = {}
        self._suspected_orphans: set[int] = set()
        self._loop_ticks = 0
        self._last_loop_ticks = -1
        self._stalled_checks = 0
        self._idle_checks = 0
        self._log = structlog.get_logger()

    def start(self) -> None:
        """Begin to look; to be called in the main process."""
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def tick(self) -> None:
        """Note that Celery's loop turns; to be called by a timer of that loop."""
        self._loop_ticks += 1

    def check(self, now: float) -> None:
        """Look once, at ``now`` seconds since boot."""
        seen = self._slots.read_states()
        alive = self._pool_pids()
        for child in seen:
            if child.pid in alive:
                self._check_child(child, now)
        self._histories = {pid: watch for pid, watch in self._histories.items() if pid in alive}
        self._kill_orphans(alive)
        self._check_event_loop()
        self._check_backlog(busy=any(child.lease is not None and child.pid in alive for child in seen))

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(CHECK_EVERY_S):
            try:
                self.check(boottime_s())
            except Exception:  # noqa: BLE001  (nothing else is left to notice a stuck child)
                self._log.exception("the watchdog stumbled")

    def _check_child(self, child: SlotState, now: float) -> None:
        watch = self._histories.setdefault(child.pid, _ChildHistory())
        watch.unresponsive_checks = watch.unresponsive_checks + 1 if watch.alive_count == child.alive_count else 0
        watch.alive_count = child.alive_count
        is_late = child.is_in_agent and 0 < child.kill_at < now
        watch.late_checks = watch.late_checks + 1 if is_late else 0
        # After the grace, one in which no thread runs will not be stopped by its own: waiting on would cost its lease.
        is_deaf = (
            child.is_in_agent
            and 0 < child.kill_at - FORCED_STOP_S < now
            and watch.unresponsive_checks >= LATE_CHECKS_MAX
        )
        if watch.late_checks >= LATE_CHECKS_MAX or is_deaf:
            self._kill_child(replace(child, stop_reason=child.stop_reason or "timeout"), "it is far past its deadline")
        elif child.is_in_agent and watch.unresponsive_checks >= self._unresponsive_checks_max:
            self._kill_child(child, "no thread of it has run for a lease")

    def _kill_child(self, child: SlotState, reason: str) -> None:
        self._log.error("a child is killed", pid=child.pid, reason=reason, lease=str(child.lease))
        for pid in [*_descendants(child.pid), child.pid]:
            _kill_process(pid)
        self._histories.pop(child.pid, None)
        threading.Thread(target=self._record_killed, args=(child,), name="record-killed", daemon=True).start()

    def _kill_orphans(self, alive: set[int]) -> None:
        """End what a dead child's agent had started: as a subreaper the worker is its parent now."""
        strangers = _children(os.getpid()) - alive
        for pid in strangers & self._suspected_orphans:  # twice, for a child just forked may not be in the pool yet
            self._log.warning("a process that an agent left behind is ended", pid=pid)
            for each in [*_descendants(pid), pid]:
                _kill_process(each)
        self._suspected_orphans = strangers

    def _check_event_loop(self) -> None:
        turned = self._loop_ticks != self._last_loop_ticks
        self._stalled_checks = 0 if turned else self._stalled_checks + 1
        self._last_loop_ticks = self._loop_ticks
        if self._loop_ticks and self._stalled_checks >= LOOP_STALLED_CHECKS_MAX:
            self._exit_worker("Celery's loop does not turn")

    def _check_backlog(self, *, busy: bool) -> None:
        if busy or self._slots.drain_began_at or not self._backlog_size():
            self._idle_checks = 0
            return
        self._idle_checks += 1
        if self._idle_checks >= IDLE_CHECKS_MAX:
            self._exit_worker("messages wait while all slots are idle")

    def _exit_worker(self, reason: str) -> None:
        self._log.error("the worker ends itself, to be started again", reason=reason)
        for pid in _descendants(os.getpid()):
            _kill_process(pid)
        os._exit(EXIT_STUCK)


def _kill_process(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.update(map(int, tasks.read_text().split()))
        except OSError:  # the thread has ended meanwhile
            continue
    return found


def _descendants(pid: int) -> list[int]:
    """All processes below ``pid``, the deepest first."""
    return [each for child in _children(pid) for each in (*_descendants(child), child)]
