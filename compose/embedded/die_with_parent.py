"""Replaces itself with another program, which dies with the process that started it (PR_SET_PDEATHSIG).

``die_with_parent.py <pid of the parent> <program> <arguments>``. A file of its own, because code between fork and exec
(``preexec_fn``) may deadlock if the parent has threads. The kernel watches the *thread* that started this process, so
that thread must live as long as its process. Only the program itself dies this way; processes that it starts have to
watch their own parent, and :mod:`compose.embedded.group_reaper` kills those that do not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Replace this process with ``command``; exit with 1 if ``parent`` is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - becoming another program is what this one is for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
