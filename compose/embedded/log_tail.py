"""Shows the logs of the stack's processes on the terminal as they grow, each line with its process's name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_LOOK_EVERY_S: Final = 0.1
# mongod says some 150 such lines at each start, and nobody could see the others for them.
_QUIET: Final = '"s":"I",'


class Follower:
    """A thread that reads ``*.log`` in one directory while the block runs; a line without its end waits for it."""

    def __init__(self, logs: Path, show: Callable[[str], None]) -> None:
        self._logs = logs
        self._show = show
        self._read: dict[Path, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow-logs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()  # what is there yet is still shown
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            self._catch_up()
        self._catch_up()

    def _catch_up(self) -> None:
        for log in sorted(self._logs.glob("*.log")):
            seen = self._read.get(log, 0)
            if log.stat().st_size < seen:  # it was cut
                seen = 0
            with log.open("rb") as file:
                file.seek(seen)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[log] = seen + len(whole) + len(newline)
            for line in whole.decode(errors="replace").splitlines():
                if _QUIET not in line:
                    self._show(f"{log.stem:<10} | {line}")
