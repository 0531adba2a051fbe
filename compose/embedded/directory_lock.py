"""File lock of a data directory: one embedded stack may run in it, and a second one learns which process does."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from compose.operator_error import OperatorError


class DirectoryLock:
    """The lock of a data directory (flock); the kernel releases it with the process, however that ends."""

    def __init__(self, directory: Path) -> None:
        """Acquire the lock; raises OperatorError, which names the holder, if another process has it."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            message = f"{directory} cannot be written: {error}"
            raise OperatorError(message, fix="make it yours, or give --data") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = read_holder_of(directory)
            self._file.close()
            raise OperatorError(
                f"Bucket is running here already: {holder.get('url', directory)} (pid {holder.get('pid', 'unknown')})",
                fix=f"use that one, or stop it: Ctrl-C where it runs, or kill {holder.get('pid', '')}".rstrip(),
            ) from error

    def write_holder(self, **note: str) -> None:
        """Write what the next process should know, whether it is refused or a successor; the process id is added."""
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), **note}))
        self._file.flush()

    def close(self) -> None:
        """Release the lock."""
        self._file.close()


def read_holder_of(directory: Path) -> dict[str, Any]:
    """Return what the last holder of a directory's lock wrote about itself; ``{}`` if there is nothing readable."""
    try:
        holder = json.loads((directory / "lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}
