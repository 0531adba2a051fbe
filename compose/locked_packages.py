"""Compares the installed packages with ``requirements.lock``; never installs anything."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from compose.operator_error import OperatorError


def check_against_lock(lock: Path) -> str:
    """Return a short status of the packages; raises OperatorError with the names of those that differ from ``lock``."""
    if not lock.is_file():
        return "no requirements.lock here to compare with"
    locked = dict(pins(lock.read_text(encoding="utf-8")))
    differing = [
        f"{name} {installed or 'missing'} instead of {pin}"
        for name, pin in locked.items()
        if (installed := _installed_version(name)) != pin
    ]
    if differing:
        raise OperatorError(
            f"{len(differing)} packages are not as locked: {'; '.join(differing[:5])}",
            fix=f"make setup, or pip install --require-hashes --no-deps -r {lock.name}",
        )
    return f"{len(locked)}, as locked"


def pins(lock: str) -> Iterator[tuple[str, str]]:
    """Yield name and version of each package that this Python on this machine needs."""
    for line in lock.splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement.name, str(requirement.specifier).removeprefix("==")


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
