"""The checks of ``bucketd doctor``: each returns a short status text, or raises OperatorError with the fix."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from compose import locked_packages, mongodb_checks, redis_checks
from compose.embedded import api_port, binaries
from compose.embedded.directory_lock import DirectoryLock
from compose.operator_error import OperatorError
from compose.server_report import ServerReport
from shared.errors import SettingsError
from shared.setting_readers import VARIABLES
from shared.settings import Settings, unknown_variables

_PYTHON_MIN: Final = (3, 11)
_START_TIMEOUT_S: Final = 20
_VERSION: Final = re.compile(r"v=?(\d+\.[\d.]+)")


def checks(
    home: Path, data: Path, environ: Mapping[str, str], warn: Callable[[str], None]
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the checks of an embedded stack in ``home`` with its data in ``data``, by name, the cheapest first.

    ``warn`` gets a sentence for each thing that works and should be changed.
    """
    is_production = environ.get("BUCKET_ENV") == "production"
    check_redis = partial(redis_checks.check_redis, is_production=is_production)
    check_mongodb = partial(mongodb_checks.check_mongodb, is_production=is_production)
    yield "python", _check_python
    yield "packages", lambda: locked_packages.check_against_lock(home / "requirements.lock")
    yield "settings", lambda: _check_settings(environ, warn)
    yield "redis", lambda: _check_server("redis-server", "REDIS_URL", check_redis, environ, warn)
    yield "mongod", lambda: _check_server("mongod", "MONGODB_URL", check_mongodb, environ, warn)
    yield "port", lambda: _check_port(data)
    yield "data", lambda: _check_writable(data)


def _check_python() -> str:
    if sys.version_info < _PYTHON_MIN:
        minimum = ".".join(map(str, _PYTHON_MIN))
        fix = f"install Python {minimum}, then make clean up"
        raise OperatorError(f"Python {platform.python_version()} is too old", fix=fix)
    return platform.python_version()


def _check_settings(environ: Mapping[str, str], warn: Callable[[str], None]) -> str:
    faults = []
    try:
        settings = Settings.from_environ()
        if settings.requires_key and settings.environment == "production" and not settings.key_pepper:
            warn(
                "BUCKET_KEY_PEPPER is not set: who steals the database could check keys with it; set it before the "
                "first key is made, as each key that was made without it is no key afterwards"
            )
    except SettingsError as error:
        faults.append(str(error))
    for name, meant in unknown_variables(environ).items():
        faults.append(f"{name} is not known: unset it" + (f", or did you mean {meant}?" if meant else ""))
    if faults:
        raise OperatorError("the environment variables are wrong", fix="\n".join(faults))
    return f"{sum(variable in environ for variable, _ in VARIABLES.values())} set"


def _check_server(
    name: str,
    variable: str,
    check: Callable[[str], ServerReport],
    environ: Mapping[str, str],
    warn: Callable[[str], None],
) -> str:
    if environ.get(variable):
        report = check(environ[variable])
        for warning in report.warnings:
            warn(f"{variable}: {warning}")
        return f"{report.version} at {variable}"
    binary = binaries.find_binary(name)
    binaries.check_loadable(binary)
    try:
        completed = subprocess.run(  # noqa: S603 - the binary that was found
            [str(binary), "--version"], capture_output=True, text=True, check=True, timeout=_START_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        fix = f"set {variable}, or install another {name}"
        raise OperatorError(f"{binary} does not start: {error}", fix=fix) from error
    match = _VERSION.search(completed.stdout)
    return match[1] if match else f"of unknown version: {binary}"


def _check_port(data: Path) -> str:
    try:
        settings = Settings.from_environ()
    except SettingsError:
        return "not checked, because the settings are wrong"
    if data.is_dir():
        try:
            DirectoryLock(data).close()
        except OperatorError as error:
            return str(error)
    return f"{api_port.pick_port(settings.host, settings.port)} is free"


def _check_writable(data: Path) -> str:
    existing = next(directory for directory in (data, *data.parents) if directory.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OperatorError(f"{existing} cannot be written: {error}", fix=f"chown {os.getuid()} {existing}") from error
    return str(data)
