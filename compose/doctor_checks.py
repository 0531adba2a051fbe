"""The checks of ``bucketd doctor``: each answers how something stands, or raises Trouble with what mends it."""

from __future__ import annotations

import difflib
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compose import locked_packages, server_versions
from compose.embedded import binaries, tcp_port
from compose.embedded.directory_lock import DirectoryLock
from compose.errors import OperatorError
from shared.errors import SettingsError
from shared.settings import VARIABLES, Settings

_PYTHON_MIN: Final = (3, 11)
_START_TIMEOUT_S: Final = 20
_VERSION: Final = re.compile(r"v=?(\d+\.[\d.]+)")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at; ``look`` answers in a few words how it stands."""

    name: str
    run: Callable[[], str]


def checks(home: Path, data: Path, environ: Mapping[str, str]) -> Iterator[Check]:
    """Answer every check of an embedded stack in ``home`` that keeps its data in ``data``, cheapest first."""
    yield Check("python", _check_python)
    yield Check("packages", lambda: locked_packages.check_against_lock(home / "requirements.lock"))
    yield Check("settings", lambda: _check_settings(environ))
    yield Check(
        "redis", lambda: _check_server("redis-server", "REDIS_URL", server_versions.check_redis_version, environ)
    )
    yield Check(
        "mongod", lambda: _check_server("mongod", "MONGODB_URL", server_versions.check_mongodb_version, environ)
    )
    yield Check("port", lambda: _check_port(data))
    yield Check("data", lambda: _check_writable(data))


def _check_python() -> str:
    if sys.version_info < _PYTHON_MIN:
        wanted = ".".join(map(str, _PYTHON_MIN))
        raise OperatorError(
            f"Python {platform.python_version()} is too old", fix=f"install Python {wanted}, then make clean up"
        )
    return platform.python_version()


def _check_settings(environ: Mapping[str, str]) -> str:
    known = [variable for variable, _ in VARIABLES.values()]
    faults = []
    try:
        Settings.from_environ()
    except SettingsError as wrong:
        faults.append(str(wrong))
    for name in environ:
        if name.startswith("BUCKET_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            faults.append(f"{name} is not known: unset it" + (f", or did you mean {near[0]}?" if near else ""))
    if faults:
        raise OperatorError("the environment is written wrongly", fix="\n".join(faults))
    return f"{sum(name in environ for name in known)} set"


def _check_server(name: str, variable: str, version: Callable[[str], str], environ: Mapping[str, str]) -> str:
    if environ.get(variable):
        return f"{version(environ[variable])} at {variable}"
    binary = binaries.find_binary(name)
    binaries.check_loadable(binary)
    try:
        told = subprocess.run(  # noqa: S603 - the binary that was found
            [str(binary), "--version"], capture_output=True, text=True, check=True, timeout=_START_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as failed:
        fix = f"set {variable}, or install another {name}"
        raise OperatorError(f"{binary} does not start: {failed}", fix=fix) from failed
    found = _VERSION.search(told.stdout)
    return found[1] if found else f"of unknown version: {binary}"


def _check_port(data: Path) -> str:
    try:
        settings = Settings.from_environ()
    except SettingsError:
        return "not looked at, for the settings are wrong"
    if data.is_dir():
        try:
            DirectoryLock(data).close()
        except OperatorError as held:
            return str(held)
    return f"{tcp_port.pick_port(settings.host, settings.port)} is free"


def _check_writable(data: Path) -> str:
    place = next(directory for directory in (data, *data.parents) if directory.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as refused:
        raise OperatorError(f"{place} cannot be written: {refused}", fix=f"chown {os.getuid()} {place}") from refused
    return str(data)
