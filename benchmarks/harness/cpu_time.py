"""CPU time of a process and of all its descendants, read from /proc; ended children are included."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
# Fields of /proc/<pid>/stat after the name, which may itself contain spaces and brackets.
_PARENT, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds of one process, and those of everything that it started."""

    own_s: float = 0.0
    children_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Both together."""
        return self.own_s + self.children_s

    def __sub__(self, before: CpuTime) -> CpuTime:
        return CpuTime(self.own_s - before.own_s, self.children_s - before.children_s)


def cpu_time_by_pid(pids: Iterable[int]) -> dict[int, CpuTime]:
    """Return the CPU time of each process of ``pids`` and its descendants, by pid; one that has ended is left out.

    A child that has ended counts for its parent once the parent has reaped it, so no figure ever decreases.
    """
    stats = {int(entry.name): found for entry in PROC.glob("[0-9]*") if (found := _stat(entry)) is not None}
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[_PARENT]), []).append(pid)
    return {pid: _cpu_time_of(pid, stats, children) for pid in pids if pid in stats}


def _cpu_time_of(root: int, stats: dict[int, list[str]], children: dict[int, list[int]]) -> CpuTime:
    own = _ticks(stats[root], _UTIME, _STIME)
    below = _ticks(stats[root], _CUTIME, _CSTIME)
    left = list(children.get(root, ()))
    while left:
        pid = left.pop()
        below += _ticks(stats[pid], _UTIME, _STIME, _CUTIME, _CSTIME)
        left += children.get(pid, ())
    return CpuTime(own / _TICKS_A_SECOND, below / _TICKS_A_SECOND)


def _ticks(fields: list[str], *indexes: int) -> int:
    return sum(int(fields[index]) for index in indexes)


def _stat(entry: Path) -> list[str] | None:
    try:
        return (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None  # it ended meanwhile


def children_of(pid: int, proc: Path = PROC) -> list[int]:
    """Return the ids of the running processes whose parent is ``pid``."""
    entries = ((int(entry.name), _stat(entry)) for entry in proc.glob("[0-9]*"))
    return [child for child, fields in entries if fields is not None and int(fields[_PARENT]) == pid]
