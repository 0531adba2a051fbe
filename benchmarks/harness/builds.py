"""Builds of Bucket: this checkout, or one of another commit, each with an interpreter and packages of its own."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from compose.embedded.process_plan import ChildPlan
from compose.operator_error import OperatorError

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Build:
    """The root of a checkout, and the interpreter that has the packages of its ``requirements.lock``."""

    root: Path
    python: Path

    @classmethod
    def at(cls, directory: Path) -> Self:
        """Return the build in ``directory``; raises OperatorError if it is not a checkout with its own ``.venv``."""
        root = directory.resolve()
        # Not resolved: the link itself is what tells Python which virtual environment it belongs to.
        python = root / ".venv" / "bin" / "python"
        if not (root / "api" / "wsgi.py").is_file():
            raise OperatorError(f"{root} is not a checkout of Bucket", fix="name the root of one: --beside DIRECTORY")
        if not python.is_file():
            raise OperatorError(f"{root} has no .venv", fix=f"make -C {root} setup")
        return cls(root, python)

    def own_plan(self, plan: ChildPlan) -> ChildPlan:
        """Return ``plan``, which runs the code of this process, as one that runs the code and packages of this build.

        The working directory is changed too, because gunicorn, Celery and ``python -m`` import from it first.
        """
        scripts = Path(sysconfig.get_path("scripts"))
        arguments = (
            str(self.python.with_name(Path(argument).name)) if Path(argument).parent == scripts else argument
            for argument in plan.argv[1:]
        )
        argv = ("env", f"--chdir={self.root}", str(self.python), *arguments)
        return replace(plan, argv=argv, env=dict(plan.env) | {"PYTHONPATH": str(self.root)})


THIS_BUILD: Final = Build(ROOT, Path(sys.executable))
