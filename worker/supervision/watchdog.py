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

from shared.clock import since_boot
from worker.supervision.shared_slots import Seen, Slots
from worker.supervision.step_interrupter import FORCE_S

LOOK_EVERY_S: Final = 1.0
LOOP_LOOKS_MAX: Final = 30
IDLE_LOOKS_MAX: Final = 60
LATE_LOOKS: Final = 3
EXIT_STUCK: Final = 70
_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(slots=True)
class _Watch:
    """What the looks at one child have seen so far."""

    beats: int = -1
    silent: int = 0
    late: int = 0


class Watchdog:
    """Looks each second from a thread of its own.

    ``record`` is told, in another thread, of a killed child whose step was late; ``waiting`` answers how many
    messages wait (None where Redis does not say); ``pool`` the pids of Celery's children.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        lease_s: float,
        record: Callable[[Seen], None],
        waiting: Callable[[], int | None],
        pool: Callable[[], set[int]],
    ) -> None:
        self._slots = slots
        self._silent_max = max(3, round(lease_s / LOOK_EVERY_S))
        self._record = record
        self._waiting = waiting
        self._pool = pool
        self._watches: dict[int, _Watch] = {}
        self._strangers: set[int] = set()
        self._ticks = 0
        self._seen_ticks = -1
        self._still = 0
        self._idle = 0
        self._log = structlog.get_logger()

    def start(self) -> None:
        """Begin to look; to be called in the main process."""
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def tick(self) -> None:
        """Note that Celery's loop turns; to be called by a timer of that loop."""
        self._ticks += 1

    def look(self, now: float) -> None:
        """Look once, at ``now`` seconds since boot."""
        seen = self._slots.seen()
        alive = self._pool()
        for child in seen:
            if child.pid in alive:
                self._look_at(child, now)
        self._watches = {pid: watch for pid, watch in self._watches.items() if pid in alive}
        self._end_orphans(alive)
        self._look_at_loop()
        self._look_at_queue(busy=any(child.lease is not None and child.pid in alive for child in seen))

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_EVERY_S):
            try:
                self.look(since_boot())
            except Exception:  # noqa: BLE001  (nothing else is left to notice a stuck child)
                self._log.exception("the watchdog stumbled")

    def _look_at(self, child: Seen, now: float) -> None:
        watch = self._watches.setdefault(child.pid, _Watch())
        watch.silent = watch.silent + 1 if watch.beats == child.beats else 0
        watch.beats = child.beats
        is_late = child.in_agent and 0 < child.kill_at < now
        watch.late = watch.late + 1 if is_late else 0
        # After the grace, one in which no thread runs will not be stopped by its own: waiting on would cost its lease.
        is_deaf = child.in_agent and 0 < child.kill_at - FORCE_S < now and watch.silent >= LATE_LOOKS
        if watch.late >= LATE_LOOKS or is_deaf:
            self._kill(replace(child, why=child.why or "timeout"), "it is far past its deadline")
        elif child.in_agent and watch.silent >= self._silent_max:
            self._kill(child, "no thread of it has run for a lease")

    def _kill(self, child: Seen, reason: str) -> None:
        self._log.error("a child is killed", pid=child.pid, reason=reason, lease=str(child.lease))
        for pid in [*_descendants(child.pid), child.pid]:
            _end(pid)
        self._watches.pop(child.pid, None)
        threading.Thread(target=self._record, args=(child,), name="record-killed", daemon=True).start()

    def _end_orphans(self, alive: set[int]) -> None:
        """End what a dead child's agent had started: as a subreaper the worker is its parent now."""
        strangers = _children(os.getpid()) - alive
        for pid in strangers & self._strangers:  # twice, for a child just forked may not be in the pool yet
            self._log.warning("a process that an agent left behind is ended", pid=pid)
            for each in [*_descendants(pid), pid]:
                _end(each)
        self._strangers = strangers

    def _look_at_loop(self) -> None:
        turned = self._ticks != self._seen_ticks
        self._still = 0 if turned else self._still + 1
        self._seen_ticks = self._ticks
        if self._ticks and self._still >= LOOP_LOOKS_MAX:
            self._leave("Celery's loop does not turn")

    def _look_at_queue(self, *, busy: bool) -> None:
        if busy or self._slots.draining_since or not self._waiting():
            self._idle = 0
            return
        self._idle += 1
        if self._idle >= IDLE_LOOKS_MAX:
            self._leave("messages wait while all slots are idle")

    def _leave(self, reason: str) -> None:
        self._log.error("the worker ends itself, to be started again", reason=reason)
        for pid in _descendants(os.getpid()):
            _end(pid)
        os._exit(EXIT_STUCK)


def _end(pid: int) -> None:
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
