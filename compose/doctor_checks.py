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
from compose.embedded.directory_lock import Lock
from compose.errors import Trouble
from shared.errors import SettingsError
from shared.settings import VARIABLES, Settings

_OLDEST_PYTHON: Final = (3, 11)
_START_WITHIN_S: Final = 20
_VERSION: Final = re.compile(r"v=?(\d+\.[\d.]+)")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at; ``look`` answers in a few words how it stands."""

    name: str
    look: Callable[[], str]


def checks(home: Path, data: Path, environ: Mapping[str, str]) -> Iterator[Check]:
    """Answer every check of an embedded stack in ``home`` that keeps its data in ``data``, cheapest first."""
    yield Check("python", _python)
    yield Check("packages", lambda: locked_packages.check(home / "requirements.lock"))
    yield Check("settings", lambda: _settings(environ))
    yield Check("redis", lambda: _server("redis-server", "REDIS_URL", server_versions.redis_version, environ))
    yield Check("mongod", lambda: _server("mongod", "MONGODB_URL", server_versions.mongodb_version, environ))
    yield Check("port", lambda: _port(data))
    yield Check("data", lambda: _writable(data))


def _python() -> str:
    if sys.version_info < _OLDEST_PYTHON:
        wanted = ".".join(map(str, _OLDEST_PYTHON))
        raise Trouble(
            f"Python {platform.python_version()} is too old", fix=f"install Python {wanted}, then make clean up"
        )
    return platform.python_version()


def _settings(environ: Mapping[str, str]) -> str:
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
        raise Trouble("the environment is written wrongly", fix="\n".join(faults))
    return f"{sum(name in environ for name in known)} set"


def _server(name: str, variable: str, version: Callable[[str], str], environ: Mapping[str, str]) -> str:
    if environ.get(variable):
        return f"{version(environ[variable])} at {variable}"
    binary = binaries.find(name)
    binaries.check_loadable(binary)
    try:
        told = subprocess.run(  # noqa: S603 - the binary that was found
            [str(binary), "--version"], capture_output=True, text=True, check=True, timeout=_START_WITHIN_S
        )
    except (OSError, subprocess.SubprocessError) as failed:
        fix = f"set {variable}, or install another {name}"
        raise Trouble(f"{binary} does not start: {failed}", fix=fix) from failed
    found = _VERSION.search(told.stdout)
    return found[1] if found else f"of unknown version: {binary}"


def _port(data: Path) -> str:
    try:
        settings = Settings.from_environ()
    except SettingsError:
        return "not looked at, for the settings are wrong"
    if data.is_dir():
        try:
            Lock(data).close()
        except Trouble as held:
            return str(held)
    return f"{tcp_port.settle(settings.host, settings.port)} is free"


def _writable(data: Path) -> str:
    place = next(directory for directory in (data, *data.parents) if directory.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as refused:
        raise Trouble(f"{place} cannot be written: {refused}", fix=f"chown {os.getuid()} {place}") from refused
    return str(data)
