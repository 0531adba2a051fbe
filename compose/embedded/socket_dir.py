"""Creates and removes the directory for the unix sockets of an embedded stack; it is private and has a short path."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "bucket-"
# The path of a socket must be shorter than 108 bytes; the longest name in the directory needs about 20 of them.
_BASE_MAX_BYTES: Final = 70


def make_socket_dir() -> Path:
    """Create a new directory with mode 0700 for unix sockets and return its path."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (runtime, tempfile.gettempdir()):
        if base and len(os.fsencode(base)) <= _BASE_MAX_BYTES and os.access(base, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))


def remove_socket_dir(directory: Path) -> None:
    """Remove a directory that :func:`make_socket_dir` made, also before a crash; leave any other alone."""
    if directory.name.startswith(_PREFIX) and directory.is_dir() and directory.stat().st_uid == os.getuid():
        shutil.rmtree(directory, ignore_errors=True)
