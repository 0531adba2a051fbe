"""File lock of a data directory: one embedded stack may run in it, and a second one learns which process does."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from compose.operator_error import OperatorError


class DirectoryLock:
    """The lock of a data directory (flock); the kernel releases it with the process, however that ends."""

    def __init__(self, directory: Path) -> None:
        """Acquire the lock; raises OperatorError, which names the holder, if another process has it."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise OperatorError(
                f"{directory} cannot be written: {error}", fix="make it yours, or give --data"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self.read_holder()
            self._file.close()
            raise OperatorError(
                f"Bucket is running here already: {holder.get('url', directory)} (pid {holder.get('pid', 'unknown')})",
                fix=f"use that one, or stop it: Ctrl-C where it runs, or kill {holder.get('pid', '')}".rstrip(),
            ) from error

    def read_holder(self) -> dict[str, Any]:
        """Return what the last holder wrote about itself; ``{}`` if there is nothing readable."""
        self._file.seek(0)
        return _parse_holder(self._file.read())

    def write_holder(self, **note: str) -> None:
        """Write what the next process should know, whether it is refused or a successor; the process id is added."""
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), **note}))
        self._file.flush()

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_holder_of(directory: Path) -> dict[str, Any]:
    """Return, without the lock, what the holder of a directory's lock wrote about itself; ``{}`` if nothing."""
    try:
        return _parse_holder((directory / "lock").read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        return {}


def _parse_holder(text: str) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
