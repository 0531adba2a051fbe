"""Installs the packages that agents name in ``requirements.txt``, without changing any package of Bucket."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

from compose import locked_packages, unneeded_packages
from compose.operator_error import OperatorError
from compose.own_agents.agent_checks import find_agent_folders

REQUIREMENTS_FILE: Final = "requirements.txt"
_CONFLICT_MARKS: Final = ("ResolutionImpossible", "conflicting dependencies")
_LINES_MAX: Final = 12


def install_packages(path: Path, lock: Path) -> Iterator[tuple[str, str]]:
    """Install what the agents in ``path`` need, all together; yield each file with a sentence about it.

    Every package of Bucket keeps its version: those of the file ``lock``, or without it those that Bucket requires.
    Raises OperatorError, in words, if that is not possible; then nothing is installed.
    """
    files = [file for folder in find_agent_folders(path) if (file := folder / REQUIREMENTS_FILE).is_file()]
    if not files:
        yield str(path), f"no agent here has a {REQUIREMENTS_FILE}; nothing to install"
        return
    if importlib.util.find_spec("pip") is None:
        raise OperatorError(f"{sys.executable} has no pip", fix=f"{sys.executable} -m ensurepip")
    pins, before = _pins_of_bucket(lock), _installed_versions()
    _run_pip(files, pins)
    after = _installed_versions()
    if moved := [f"{name} {after.get(name)} instead of {pin}" for name, pin in pins.items() if after.get(name) != pin]:
        # Constraints do not hold what is named by a URL or a path.
        fix = "make clean setup, and name packages without URLs"
        raise OperatorError(f"packages of Bucket were changed: {', '.join(moved)}", fix=fix)
    installed = [f"{name} {version}" for name, version in sorted(after.items()) if before.get(name) != version]
    for file in files:
        yield str(file), "installed" if installed else "installed already"
    if installed:
        yield "new", ", ".join(installed)


def _pins_of_bucket(lock: Path) -> dict[str, str]:
    """Return the name and the installed version of each package that must stay as it is."""
    if lock.is_file():
        names = {str(canonicalize_name(name)) for name, _ in locked_packages.pins(lock.read_text(encoding="utf-8"))}
    else:
        names = unneeded_packages.required_packages("bucket") - {"bucket"}
    return {name: version for name, version in _installed_versions().items() if name in names}


def _run_pip(files: list[Path], pins: Mapping[str, str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix="-bucket.txt", encoding="utf-8") as constraints:
        constraints.write("".join(f"{name}=={pin}\n" for name, pin in pins.items()))
        constraints.flush()
        options = ["--no-input", "--disable-pip-version-check", "--constraint", constraints.name]
        requirements = [word for file in files for word in ("--requirement", str(file))]
        command = [sys.executable, "-m", "pip", "install", *options, *requirements]
        completed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - pip itself
    if completed.returncode == 0:
        return
    lines = [line.strip() for line in (completed.stdout + completed.stderr).splitlines() if line.strip()]
    text = "\n".join(lines).replace(constraints.name, "the packages of Bucket")
    if any(mark in text for mark in _CONFLICT_MARKS):
        relevant = [
            line.removesuffix("\\").strip().replace("The user requested (constraint)", "Bucket has")
            for line in text.splitlines()
            if " depends on " in line or "The user requested" in line
        ]
        message = "what the agents need does not go with the packages of Bucket, so nothing was installed"
        fix = "\n".join([*relevant[:_LINES_MAX], "ask for versions that go with these, in requirements.txt"])
        raise OperatorError(message, fix=fix)
    errors = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()
    raise OperatorError("pip could not install the packages", fix="\n".join(errors[-_LINES_MAX:]))


def _installed_versions() -> dict[str, str]:
    return {str(canonicalize_name(each.name)): each.version for each in metadata.distributions()}
