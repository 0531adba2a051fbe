"""Lets one embedded stack run in a data directory, and tells the second who runs there."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from compose.errors import OperatorError


class DirectoryLock:
    """The lock of a data directory; the kernel gives it up with the process, however that ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock; raises Trouble, which names the holder, where another process has it."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / "lock").open("a+", encoding="utf-8")
        except OSError as refused:
            raise OperatorError(
                f"{directory} cannot be written: {refused}", fix="make it yours, or give --data"
            ) from refused
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            holder = self.read_holder()
            self._file.close()
            raise OperatorError(
                f"Bucket is running here already: {holder.get('url', directory)} (pid {holder.get('pid', 'unknown')})",
                fix=f"use that one, or stop it: Ctrl-C where it runs, or kill {holder.get('pid', '')}".rstrip(),
            ) from held

    def read_holder(self) -> dict[str, Any]:
        """Answer what the last holder wrote about itself; nothing where it wrote nothing that can be read."""
        self._file.seek(0)
        return _parse_holder(self._file.read())

    def write_holder(self, **note: str) -> None:
        """Write what the next process, turned away or successor, should know; the process id is added."""
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), **note}))
        self._file.flush()

    def close(self) -> None:
        """Give the lock up."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_holder_of(directory: Path) -> dict[str, Any]:
    """Answer what the holder of a directory's lock wrote about itself, without the lock; nothing where none did."""
    try:
        return _parse_holder((directory / "lock").read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        return {}


def _parse_holder(text: str) -> dict[str, Any]:
    try:
        note = json.loads(text)
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}
