"""Helpers for tests with real processes: wait for a condition with a deadline, find the descendants of a process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(holds: Callable[[], object], within_s: float = 10.0, what: str = "") -> None:
    """Wait until ``holds()`` is true; fail after ``within_s`` seconds."""
    due_by = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < due_by, f"not within {within_s:g} s: {what or holds}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie (ended, not reaped yet) does not."""
    return _state_and_parent(pid)[0] not in {"", "Z", "X"}


def is_paused(pid: int) -> bool:
    """Return whether a process is stopped by a signal."""
    return _state_and_parent(pid)[0] == "T"


def descendants(pid: int) -> set[int]:
    """Return the process ids of all descendants of ``pid``."""
    parents = {int(entry.name): _state_and_parent(int(entry.name))[1] for entry in Path("/proc").glob("[0-9]*")}
    pids: set[int] = set()
    newest = {pid}
    while newest:
        newest = {child for child, parent in parents.items() if parent in newest} - pids
        pids |= newest
    return pids


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)
