"""Group reaper: outlives the supervisor by a moment and kills every process group that it left, grandchildren too.

``die_with_parent`` kills each direct child with its supervisor; this process is for what those children started. It
reads the ids of groups from a pipe, one per line (``+123`` adds, ``-123`` removes). When the pipe closes, it kills all
groups that are still on its list, and deletes the directory of sockets if it got one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self


class GroupReaper:
    """The pipe to a reaper process; a context manager, at whose end all registered groups are killed."""

    def __init__(self, socket_dir: Path | None = None) -> None:
        arguments = [] if socket_dir is None else [str(socket_dir)]
        # A session of its own, so that Ctrl-C in the terminal does not reach it.
        self._process = subprocess.Popen(  # noqa: S603 - this file
            [sys.executable, "-I", "-S", __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def register(self, group: int) -> None:
        """Register ``group`` to be killed when this process ends."""
        self._send(f"+{group}\n")

    def unregister(self, group: int) -> None:
        """Remove ``group`` from the list; call it before its leader is reaped, because then its id can be reused."""
        self._send(f"-{group}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for mypy; it was asked for as a pipe
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _send(self, line: str) -> None:
        # If the reaper process was killed, the stack goes on without it.
        assert self._process.stdin is not None  # noqa: S101 - for mypy; it was asked for as a pipe
        with suppress(OSError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def main() -> None:
    """Read the pipe until it closes, then kill the groups that are left."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
    for group in groups:
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for directory in sys.argv[1:]:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
