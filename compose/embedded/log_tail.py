"""Prints the logs of the stack's processes as they grow (tail -f), each line with the name of its process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

_READ_EVERY_S: Final = 0.1
# mongod writes about 150 such lines at each start, which would hide the others.
_MONGOD_INFO: Final = '"s":"I",'


class LogTail:
    """A thread that prints new lines of ``*.log`` in one directory while the block runs; only complete lines."""

    def __init__(self, logs: Path, print_line: Callable[[str], None]) -> None:
        self._logs = logs
        self._print_line = print_line
        self._offsets: dict[Path, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow-logs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()  # the thread still prints the last lines
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_READ_EVERY_S):
            self._print_new_lines()
        self._print_new_lines()

    def _print_new_lines(self) -> None:
        for log in sorted(self._logs.glob("*.log")):
            offset = self._offsets.get(log, 0)
            if log.stat().st_size < offset:  # the log was truncated
                offset = 0
            with log.open("rb") as file:
                file.seek(offset)
                complete_lines, newline, _ = file.read().rpartition(b"\n")
            self._offsets[log] = offset + len(complete_lines) + len(newline)
            for line in complete_lines.decode(errors="replace").splitlines():
                if _MONGOD_INFO not in line:
                    self._print_line(f"{log.stem:<10} | {line}")
