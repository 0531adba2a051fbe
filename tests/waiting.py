"""Watches real processes in tests: waits for conditions with a deadline, and finds what a process has started."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(holds: Callable[[], object], within_s: float = 10.0, what: str = "") -> None:
    """Return as soon as ``holds()`` is true; fail after ``within_s``."""
    due_by = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < due_by, f"not within {within_s:g} s: {what or holds}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Answer whether a process runs; one that has ended and was not reaped yet does not."""
    return _state_and_parent(pid)[0] not in {"", "Z", "X"}


def is_paused(pid: int) -> bool:
    """Answer whether a process has been stopped by a signal, and not resumed."""
    return _state_and_parent(pid)[0] == "T"


def descendants(pid: int) -> set[int]:
    """Answer the ids of all that ``pid`` has started, and that those have."""
    parents = {int(entry.name): _state_and_parent(int(entry.name))[1] for entry in Path("/proc").glob("[0-9]*")}
    found: set[int] = set()
    newest = {pid}
    while newest:
        newest = {child for child, parent in parents.items() if parent in newest} - found
        found |= newest
    return found


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)
