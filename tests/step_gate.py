"""A gate that blocks a step as long as a test wants: the agent ``counter`` writes to a pipe without a reader.

With :func:`step_gate` a run stays under way until the test opens the gate, however slow the machine is. Without it a
run that takes "long enough" either ends too soon or makes the test wait too long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Gate:
    """A named pipe: a writer that opens it blocks until :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: int | None = None
        os.mkfifo(path)

    def open(self) -> None:
        """Let the waiting writers through; later ones find no pipe and create a plain file."""
        if self._reader is None:
            self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            self._path.unlink()

    def close(self) -> None:
        """Let the waiting writers through, and close the reader."""
        self.open()
        if self._reader is not None:
            os.close(self._reader)


@contextmanager
def step_gate(path: Path) -> Iterator[Gate]:
    """Yield a shut gate at ``path``; it is open after the block."""
    shut = Gate(path)
    try:
        yield shut
    finally:
        shut.close()
