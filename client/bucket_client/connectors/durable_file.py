"""Durable files: a file is replaced as a whole or not at all, and is on the disk when the function returns."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def make_folders(folder: Path) -> None:
    """Make ``folder`` and its parents, and sync their entries to the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to the disk: a new name survives a power failure only after that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write ``content`` to a temporary file of the same folder, then rename it to ``path``.

    A reader sees the old content or the new one. ``mode`` is reduced by the umask. A process that is killed here leaves
    at most a hidden file that ends in ``.tmp``.
    """
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"  # short: the name of ``path`` may have the maximal length
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
