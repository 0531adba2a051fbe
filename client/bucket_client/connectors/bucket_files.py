"""Save payloads as JSON files in the bucket folder; nothing is ever written outside of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePosixPath
from typing import Any, Final

from bucket_client.connectors.connector_errors import FilenameRefused
from bucket_client.connectors.connector_metrics import REGISTRY
from bucket_client.connectors.connector_settings import ConnectorSettings
from bucket_client.connectors.durable_file import make_folders, replace_file
from bucket_client.connectors.json_text import encode_payload

_NAME_BYTES_MAX: Final = 255


def save_to_bucket(
    payload: Any, filename: str | os.PathLike[str], *, settings: ConnectorSettings | None = None
) -> Path:
    """Write a payload as JSON to ``filename`` in the bucket folder, atomically, and return the path of the file.

    The name may hold folders, which are made. A file of this name is replaced as a whole. Raises PayloadNotJson,
    FilenameRefused for a name that is none or that leads out of the folder, and OSError; nothing is written then.
    """
    settings = settings or ConnectorSettings.from_environment()
    is_saved = False
    try:
        content = encode_payload(payload) + b"\n"
        target = _target_of(filename, settings.bucket_dir)
        try:
            make_folders(target.parent)
        except (FileExistsError, NotADirectoryError):
            raise FilenameRefused(
                f"{os.fspath(filename)!r}: one of its folders is a file; choose another name"
            ) from None
        replace_file(target, content)
        is_saved = True
    finally:
        REGISTRY.count("saves", "saved" if is_saved else "failed")
    return target


async def save_to_bucket_async(
    payload: Any, filename: str | os.PathLike[str], *, settings: ConnectorSettings | None = None
) -> Path:
    """Write a payload as JSON in the bucket folder, in a thread: the async form of :func:`save_to_bucket`."""
    return await asyncio.to_thread(save_to_bucket, payload, filename, settings=settings)


def _target_of(filename: str | os.PathLike[str], bucket_dir: Path) -> Path:
    """Return the absolute path of the file, with all symbolic links followed. Raises FilenameRefused."""
    name = os.fspath(filename)
    if flaw := _flaw_of(name):
        raise FilenameRefused(f"{name!r:.300} {flaw}; use a name like runs/run.json, relative to the bucket folder")
    root = Path(os.path.realpath(bucket_dir))
    target = Path(os.path.realpath(root / name))
    if target == root or not target.is_relative_to(root):
        raise FilenameRefused(f"{name!r} leads out of the bucket folder by a symbolic link; remove the link")
    if target.is_dir():
        raise FilenameRefused(f"{name!r} is a folder; add a file name")
    return target


def _flaw_of(name: str) -> str:
    """Return what is wrong with a name; an empty text if nothing is."""
    path = PurePosixPath(name)
    flaws = (
        (not name, "is empty"),
        ("\0" in name, "holds a NUL character"),
        ("\\" in name, "holds a backslash"),  # on Windows it divides folders, so one name would mean two files
        (path.is_absolute(), "is an absolute path"),
        (".." in path.parts, "holds '..'"),
        (not path.parts or name.endswith(("/", "/.")), "names a folder"),
        (any("\ud800" <= character <= "\udfff" for character in name), "holds a surrogate, which is no character"),
        (
            any(len(part.encode(errors="replace")) > _NAME_BYTES_MAX for part in path.parts),
            f"has a part of more than {_NAME_BYTES_MAX} bytes",
        ),
    )
    return next((flaw for is_present, flaw in flaws if is_present), "")
