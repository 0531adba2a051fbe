"""Holds a step for as long as a test wants: the agent ``counter`` must leave its line in a pipe that nobody reads yet.

With :func:`gate` a run is under way until the test lets it go, however slow the machine; without it a run that takes
"long enough" is either over too soon or waited for too long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Gate:
    """A named pipe: whoever opens it to write waits until :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: int | None = None
        os.mkfifo(path)

    def open(self) -> None:
        """Let through who waits; whoever comes later finds a plain file."""
        if self._reader is None:
            self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            self._path.unlink()

    def close(self) -> None:
        """Let through who waits, and read no more."""
        self.open()
        if self._reader is not None:
            os.close(self._reader)


@contextmanager
def gate(path: Path) -> Iterator[Gate]:
    """Answer a gate at ``path`` that is shut; nobody waits at it after the block."""
    shut = Gate(path)
    try:
        yield shut
    finally:
        shut.close()
