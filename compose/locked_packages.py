"""Compares the installed packages with ``requirements.lock``; never installs anything."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from compose.operator_error import OperatorError

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


def check_against_lock(lock: Path) -> str:
    """Return a short status of the packages; raises OperatorError with the names of those that differ from ``lock``."""
    if not lock.is_file():
        return "no requirements.lock here to compare with"
    pins = dict(_PINNED.findall(lock.read_text(encoding="utf-8")))
    differing = [
        f"{name} {installed or 'missing'} instead of {pin}"
        for name, pin in pins.items()
        if (installed := _installed_version(name)) != pin
    ]
    if differing:
        raise OperatorError(
            f"{len(differing)} packages are not as locked: {'; '.join(differing[:5])}",
            fix=f"make setup, or pip install --require-hashes --no-deps -r {lock.name}",
        )
    return f"{len(pins)}, as locked"


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
