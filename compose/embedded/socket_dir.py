"""Makes the directories that an embedded stack lives in; the sockets' one is private and has a short path."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "bucket-"
# A socket's path must stay under 108 bytes; the longest name in the directory takes some 20 of them.
_BASE_MAX_BYTES: Final = 70


def make_socket_dir() -> Path:
    """Make a fresh directory of mode 0700 for unix sockets and answer it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (runtime, tempfile.gettempdir()):
        if base and len(os.fsencode(base)) <= _BASE_MAX_BYTES and os.access(base, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))


def remove_socket_dir(directory: Path) -> None:
    """Remove a directory that :func:`make_socket_dir` made, now or before a crash; anything else is left alone."""
    if directory.name.startswith(_PREFIX) and directory.is_dir() and directory.stat().st_uid == os.getuid():
        shutil.rmtree(directory, ignore_errors=True)
