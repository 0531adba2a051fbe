"""Memory of a process and of all its descendants as PSS (proportional set size), read from /proc.

A page that several processes share counts for each of them by its share, so a sum over forked processes counts it once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from benchmarks.harness.cpu_time import PROC, children_of

_PSS: Final = re.compile(r"^Pss: +([0-9]+) kB$", re.MULTILINE)
_BYTES_A_KB: Final = 1024


def pss_bytes(pid: int, proc: Path = PROC) -> int:
    """Return the PSS of the process ``pid`` and of everything below it, in bytes; one that has ended has none."""
    below = sum(pss_bytes(child, proc) for child in children_of(pid, proc))
    try:
        rollup = (proc / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return below  # it has ended meanwhile
    match = _PSS.search(rollup)
    return below + (int(match[1]) * _BYTES_A_KB if match is not None else 0)
