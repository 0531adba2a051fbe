"""Notices that a file of the authors' agents has changed, by looking: no events, so it works on every file system."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

LOOK_EVERY_S: Final = 1.0
STILL_FOR_S: Final = 0.5
FILES_MAX: Final = 5_000
_IGNORED_SUFFIXES: Final = ("~", ".pyc", ".swp", ".swx", ".tmp", ".bak", ".orig")
_IGNORED_NAMES: Final = frozenset({"__pycache__", "4913"})  # vim tries with a file 4913 whether it may write

_Look = dict[str, tuple[int, int]]


class AgentsWatch:
    """A look at one directory, each second: the time and the size of each of its first :data:`FILES_MAX` files."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._now = now
        self._taken = self._latest = self._look()
        self._looked_at = self._changed_at = now()

    def take_changes(self) -> list[str]:
        """Return the names of the agents that have changed since the last call that returned any; [] if none.

        A change is returned once the files have been still for :data:`STILL_FOR_S`.
        """
        if self._now() - self._looked_at < (STILL_FOR_S if self._latest != self._taken else LOOK_EVERY_S):
            return []
        latest, self._looked_at = self._look(), self._now()
        if latest != self._latest:
            self._latest, self._changed_at = latest, self._looked_at
            return []
        if latest == self._taken:
            return []
        changed = {path for path in latest.keys() | self._taken.keys() if latest.get(path) != self._taken.get(path)}
        self._taken = latest
        return sorted({Path(path).relative_to(self._directory).parts[0] for path in changed})

    def _look(self) -> _Look:
        found: _Look = {}
        for folder, folders, files in os.walk(self._directory, followlinks=True):
            folders[:] = sorted(name for name in folders if not _is_ignored(name))
            for name in sorted(files):
                if _is_ignored(name):
                    continue
                if len(found) == FILES_MAX:
                    return found
                path = os.path.join(folder, name)  # noqa: PTH118 - of thousands of files, each second
                try:
                    status = os.stat(path)  # noqa: PTH116
                except OSError:  # it has just been removed
                    continue
                found[path] = (status.st_mtime_ns, status.st_size)
        return found


def _is_ignored(name: str) -> bool:
    return name[0] in ".#" or name in _IGNORED_NAMES or name.endswith(_IGNORED_SUFFIXES)
