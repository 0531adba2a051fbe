"""Another build: its processes run its own code with its own packages, or nothing starts."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from benchmarks.harness.builds import THIS_BUILD, Build
from compose.embedded import bucket_process_plans
from compose.operator_error import OperatorError


def a_checkout(root: Path) -> Path:
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(THIS_BUILD.python)
    (root / "api").mkdir()
    (root / "api" / "wsgi.py").touch()
    return root


@pytest.mark.parametrize("name", ["api", "worker", "reconciler"])
def test_a_process_of_another_build_takes_nothing_from_this_one(tmp_path: Path, name: str) -> None:
    env = {"PYTHONPATH": str(THIS_BUILD.root), "PORT": "1"}
    plans = (
        bucket_process_plans.api_plan("", env),
        bucket_process_plans.worker_plan("", env),
        bucket_process_plans.reconciler_plan(env),
    )
    this = next(plan for plan in plans if plan.name == name)
    other = Build.at(a_checkout(tmp_path / "other")).own_plan(this)
    of_this = (str(THIS_BUILD.root), sysconfig.get_path("scripts"))
    assert not [part for part in (*other.argv, *other.env.values()) if part.startswith(of_this)]
    assert other.argv[:3] == ("env", f"--chdir={tmp_path}/other", f"{tmp_path}/other/.venv/bin/python")
    assert other.env == {"PYTHONPATH": f"{tmp_path}/other", "PORT": "1"}
    assert other.argv[-1] == this.argv[-1]


def test_this_build_keeps_its_command() -> None:
    plan = bucket_process_plans.worker_plan("", {})
    assert THIS_BUILD.own_plan(plan).argv[2:] == plan.argv


def test_a_directory_without_an_environment_is_refused_with_the_fix(tmp_path: Path) -> None:
    root = a_checkout(tmp_path / "other")
    (root / ".venv" / "bin" / "python").unlink()
    with pytest.raises(OperatorError, match="has no") as refused:
        Build.at(root)
    assert refused.value.fix == f"make -C {root} setup"


def test_a_directory_that_is_not_a_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="not a checkout"):
        Build.at(tmp_path)
