"""The watchdog of a worker's main process: kills stuck children, and ends the worker if Celery's loop is stuck.

It needs no store to act. It counts its own checks and not the clock, because a process that was frozen and thawed is
not stuck. Processes that an agent began die with its child: the worker adopts them (as a subreaper), kills and reaps
them. Those of a living child are that child's (:mod:`worker.supervision.child_processes`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from shared.clock import boottime_s
from worker.supervision.child_processes import become_subreaper, children_of, kill_tree
from worker.supervision.shared_slots import SharedSlots, SlotState
from worker.supervision.step_interrupter import FORCED_STOP_S

CHECK_EVERY_S: Final = 1.0
LOOP_STALLED_CHECKS_MAX: Final = 30
IDLE_CHECKS_MAX: Final = 60
LATE_CHECKS_MAX: Final = 3
EXIT_STUCK: Final = 70


@dataclass(slots=True)
class _ChildHistory:
    """What the checks of one child have found so far."""

    alive_count: int = -1
    unresponsive_checks: int = 0
    late_checks: int = 0


class Watchdog:
    """Checks all children once a second, in a thread of its own.

    ``record_killed`` is called, in another thread, with the state of each killed child. ``backlog_size`` returns how
    many messages wait (None if Redis does not reply). ``pool_pids`` returns the pids of Celery's children.
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
        self._killed_orphans: set[int] = set()
        self._loop_ticks = 0
        self._last_loop_ticks = -1
        self._stalled_checks = 0
        self._idle_checks = 0
        self._log = structlog.get_logger()

    def start(self) -> None:
        """Become a subreaper and start to check; to be called in the main process."""
        become_subreaper()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def tick(self) -> None:
        """Count a turn of Celery's event loop; to be called by a timer of that loop."""
        self._loop_ticks += 1

    def check(self, now: float) -> None:
        """Check everything once, at ``now`` (seconds since boot)."""
        states = self._slots.read_states()
        pool_pids = self._pool_pids()
        for child in states:
            if child.pid in pool_pids:
                self._check_child(child, now)
        self._histories = {pid: watch for pid, watch in self._histories.items() if pid in pool_pids}
        self._kill_orphans(pool_pids)
        self._check_event_loop()
        self._check_backlog(busy=any(child.lease is not None and child.pid in pool_pids for child in states))

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(CHECK_EVERY_S):
            try:
                self.check(boottime_s())
            except Exception:  # noqa: BLE001  (nothing else is left to notice a stuck child)
                self._log.exception("a check of the watchdog failed")

    def _check_child(self, child: SlotState, now: float) -> None:
        history = self._histories.setdefault(child.pid, _ChildHistory())
        history.unresponsive_checks = history.unresponsive_checks + 1 if history.alive_count == child.alive_count else 0
        history.alive_count = child.alive_count
        is_late = child.is_in_agent and 0 < child.kill_at < now
        history.late_checks = history.late_checks + 1 if is_late else 0
        # After the grace, a child in which no thread runs cannot stop its step itself: waiting on would cost the lease.
        is_over_grace = child.is_in_agent and 0 < child.kill_at - FORCED_STOP_S < now
        is_unresponsive = is_over_grace and history.unresponsive_checks >= LATE_CHECKS_MAX
        if history.late_checks >= LATE_CHECKS_MAX or is_unresponsive:
            self._kill_child(replace(child, stop_reason=child.stop_reason or "timeout"), "it is far past its deadline")
        elif child.is_in_agent and history.unresponsive_checks >= self._unresponsive_checks_max:
            self._kill_child(child, "no thread of it has run for a lease")

    def _kill_child(self, child: SlotState, reason: str) -> None:
        self._log.error("a child is killed", pid=child.pid, reason=reason, lease=str(child.lease))
        kill_tree(child.pid)
        self._histories.pop(child.pid, None)
        threading.Thread(target=self._record_killed, args=(child,), name="record-killed", daemon=True).start()

    def _kill_orphans(self, pool_pids: set[int]) -> None:
        """Kill and reap what a dead child's agent had started: as a subreaper the worker is now the parent."""
        unknown_pids = children_of(os.getpid()) - pool_pids
        for pid in unknown_pids & self._suspected_orphans:  # seen twice: a child just forked may not be in the pool yet
            if pid not in self._killed_orphans:
                self._log.warning("a process that an agent left behind is killed", pid=pid)
            kill_tree(pid)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # if it has not ended yet, at the next check
        self._killed_orphans = unknown_pids & self._suspected_orphans
        self._suspected_orphans = unknown_pids

    def _check_event_loop(self) -> None:
        has_ticked = self._loop_ticks != self._last_loop_ticks
        self._stalled_checks = 0 if has_ticked else self._stalled_checks + 1
        self._last_loop_ticks = self._loop_ticks
        if self._loop_ticks and self._stalled_checks >= LOOP_STALLED_CHECKS_MAX:
            self._exit_worker("Celery's event loop does not run")

    def _check_backlog(self, *, busy: bool) -> None:
        if busy or self._slots.drain_began_at or not self._backlog_size():
            self._idle_checks = 0
            return
        self._idle_checks += 1
        if self._idle_checks >= IDLE_CHECKS_MAX:
            self._exit_worker("messages wait while all slots are idle")

    def _exit_worker(self, reason: str) -> None:
        self._log.error("the worker exits, so that it is started again", reason=reason)
        for pid in children_of(os.getpid()):
            kill_tree(pid)
        os._exit(EXIT_STUCK)
