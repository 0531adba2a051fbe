"""Outlives the supervisor by a moment and ends every process group that it left behind, grandchildren too.

The leash ends each direct child with its supervisor; this one is for what those children started themselves. It is told
of groups on a pipe, one a line (``+123``, ``-123``); when the pipe ends, so does everything that is still on its list,
and the directory of sockets, where it was given one, goes with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class GroupReaper:
    """The pipe to a guard process; a context manager, at whose end all the watched groups are ended."""

    def __init__(self, socket_dir: Path | None = None) -> None:
        rubbish = [] if socket_dir is None else [str(socket_dir)]
        # A session of its own: the terminal's Ctrl-C is not for it.
        self._process = subprocess.Popen(  # noqa: S603 - this file
            [sys.executable, "-I", "-S", __file__, *rubbish],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def register(self, group: int) -> None:
        """Have ``group`` ended when this process ends."""
        self._send(f"+{group}\n")

    def unregister(self, group: int) -> None:
        """Leave ``group`` alone; to be called before its leader is reaped, for then its number may be another's."""
        self._send(f"-{group}\n")

    def close(self) -> None:
        """Let the guard end what is left on its list, and wait for it."""
        assert self._process.stdin is not None  # noqa: S101 - for mypy; it was asked for as a pipe
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, line: str) -> None:
        # A guard that somebody killed guards no more, and that is no reason to end what runs.
        assert self._process.stdin is not None  # noqa: S101 - for mypy; it was asked for as a pipe
        with suppress(OSError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def main() -> None:
    """Listen until the pipe ends, then end what is left."""
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
