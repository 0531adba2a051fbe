"""The processes below a worker's process: they end with the step that began them, and none is left a zombie.

A pool child adopts what its agents leave without a parent (as a subreaper), so that while a step runs none of its
processes is taken for an orphan, and all of them are found when it ends. The main process adopts what a dead child
leaves.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared.clock import boottime_s

END_WITHIN_S: Final = 1.0
_RETRY_AFTER_S: Final = 0.002
# How long to look whether a thread that an agent left behind begins others, as that of a multiprocessing.Pool does.
_LOOK_AGAIN_AFTER_S: Final = 0.05
_PR_SET_CHILD_SUBREAPER: Final = 36
# Helper processes of multiprocessing, which it starts again only if it is told that they have ended.
_MULTIPROCESSING_HELPERS: Final = (
    ("multiprocessing.forkserver", "_forkserver"),
    ("multiprocessing.resource_tracker", "_resource_tracker"),
)


def become_subreaper() -> None:
    """Adopt every process below this one whose parent ends; forked processes do not inherit this."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def has_children() -> bool:
    """Return whether this process has a child, also one that has ended and is not reaped: one system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_children() -> bool:
    """Kill and reap all processes below this one; return whether none is left, or begun anew, for good.

    It takes 50 ms, or up to :data:`END_WITHIN_S` if others are begun meanwhile.
    """
    due_by = boottime_s() + END_WITHIN_S
    while boottime_s() < due_by:
        for pid in children_of(os.getpid()):
            kill_tree(pid)
        _reset_multiprocessing_helpers()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if has_children():
            time.sleep(_RETRY_AFTER_S)
            continue
        time.sleep(_LOOK_AGAIN_AFTER_S)
        if not has_children():
            return True
    return False


def kill_tree(pid: int) -> None:
    """Kill a process and all processes below it: all are listed first, for each look takes time to start another."""
    tree = [pid]
    for parent in tree:
        tree += children_of(parent)
    for each in reversed(tree):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def children_of(pid: int) -> set[int]:
    """Return the ids of the processes whose parent is ``pid``."""
    pids: set[int] = set()
    with suppress(OSError):  # the process has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended meanwhile
                pids.update(map(int, (task / "children").read_bytes().split()))
    return pids


def _reset_multiprocessing_helpers() -> None:
    for module, name in _MULTIPROCESSING_HELPERS:
        stop = getattr(getattr(sys.modules.get(module), name, None), "_stop", None)
        if stop is not None:
            with suppress(OSError):  # it waits for its process, which has just been killed
                stop()
