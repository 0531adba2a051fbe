"""CPU time of a process and of all its descendants, to the nanosecond; of ended children, to 10 ms.

Of a living process it is read from its CPU clock (clock_getcpuclockid(3)): /proc counts in ticks of 10 ms, which is too
coarse for what takes a third of a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
# Fields of /proc/<pid>/stat after the name, which may itself contain spaces and brackets.
_PARENT, _CUTIME, _CSTIME = 1, 13, 14


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
    below_s = _ended_children_s(stats[root])
    left = list(children.get(root, ()))
    while left:
        pid = left.pop()
        below_s += _own_s(pid) + _ended_children_s(stats[pid])
        left += children.get(pid, ())
    return CpuTime(_own_s(root), below_s)


def _own_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, ended ones too; 0 if it has ended meanwhile."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # how clock_getcpuclockid() names a process's clock
    except OSError:
        return 0.0


def _ended_children_s(fields: list[str]) -> float:
    return (int(fields[_CUTIME]) + int(fields[_CSTIME])) / _TICKS_A_SECOND


def _stat(entry: Path) -> list[str] | None:
    try:
        return (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None  # it ended meanwhile


def children_of(pid: int, proc: Path = PROC) -> list[int]:
    """Return the ids of the running processes whose parent is ``pid``."""
    entries = ((int(entry.name), _stat(entry)) for entry in proc.glob("[0-9]*"))
    return [child for child, fields in entries if fields is not None and int(fields[_PARENT]) == pid]
