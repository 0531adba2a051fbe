"""What ``bucketd`` says if one of its packages cannot be imported; needs only the standard library."""

from __future__ import annotations

import platform
import sys
import traceback
from pathlib import Path

import compose
from shared.errors import BucketError

_LOCK = Path(compose.__file__).resolve().parent.parent / "requirements.lock"
_FIX = f"make clean setup, or {sys.executable} -m pip install --require-hashes --no-deps -r requirements.lock"


def describe_broken_install(error: ImportError) -> str:
    """Return the Python in use, the failed import and the packages that differ from the lock, with the fix."""
    importing = traceback.extract_tb(error.__traceback__)[-1]
    return "\n".join(
        (
            f"Python {platform.python_version()} at {sys.executable}: a package cannot be imported",
            f"    {error}, in line {importing.lineno} of {importing.filename}",
            *(f"    {line}" for line in _differences_from_lock()),
            f"    {_FIX}",
            "    then run bucketd doctor: its other checks need the packages",
        )
    )


def _differences_from_lock() -> list[str]:
    try:
        from compose import locked_packages

        return [f"packages: {locked_packages.check_against_lock(_LOCK)}"]
    except ImportError:
        return []  # the failed import above says enough
    except BucketError as difference:
        return [str(difference)]
