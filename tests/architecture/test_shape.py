"""The shape of the code: docstrings everywhere, limits on the length of modules, no import that is not needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "worker", "shared", "compose", "client")
WITH_TESTS = (*PACKAGES, "benchmarks", "tests")
MODULE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60
BANNED = {"utils", "helpers", "common", "manager", "misc", "base"}


def modules(packages: tuple[str, ...] = PACKAGES) -> list[Path]:
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(paths) > 50
    return paths


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield the public functions, classes and methods; not those inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


@pytest.mark.parametrize("path", modules(), ids=named)
def test_every_module_and_public_function_opens_with_a_sentence(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if not tree.body:
        return
    assert ast.get_docstring(tree), f"{named(path)} does not say what it does"
    without = [node.name for node in public(tree) if not ast.get_docstring(node)]
    assert not without, f"{named(path)}: {without} do not say what they do"


@pytest.mark.parametrize("path", modules(WITH_TESTS), ids=named)
def test_no_docstring_begins_with_answer(path: Path) -> None:
    """A function returns, yields or raises; "answer" is no term of Python, and readers do not search for it."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    wrong = [getattr(node, "name", "module") for node in nodes if (ast.get_docstring(node) or "").startswith("Answer")]
    assert not wrong, f"{named(path)}: the docstrings of {wrong} begin with Answer"


@pytest.mark.parametrize("path", modules(), ids=named)
def test_no_module_and_no_function_grows_without_end(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1})"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert not long
    assert path.stem not in BANNED


def loaded_by(statement: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter has loaded after ``statement``."""
    program = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    return set(done.stdout.split())


def test_the_api_loads_no_worker_no_agent_and_no_celery() -> None:
    loaded = loaded_by("import api.app, api.background")
    assert not {
        name for name in loaded if name.split(".")[0] in {"worker", "celery", "kombu"} or "_bucket_agent" in name
    }


def test_the_worker_loads_no_web_framework() -> None:
    loaded = loaded_by("import worker.steps.runner, worker.reconciler, worker.agent_loader")
    assert not {name for name in loaded if name.split(".")[0] in {"api", "flask", "flask_smorest", "gunicorn"}}


def test_the_domain_loads_nothing_but_the_standard_library_and_itself() -> None:
    loaded = loaded_by(
        "import shared.domain.lifecycle.transitions, shared.domain.lifecycle.simulator_script\n"
        "import shared.domain.definitions.step_input, shared.domain.definitions.agent_spec"
    )
    own = {name for name in loaded if name.startswith("shared")}
    assert own <= {"shared", "shared.errors", "shared.ids", "shared.json_pointer", "shared.suggestions"} | {
        name for name in own if name.startswith("shared.domain")
    }
    foreign = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names - {"shared", "__main__"}
    assert not {name for name in foreign if not name.startswith(("_", "sitecustomize", "distutils"))}


def test_only_routes_and_the_http_layer_read_the_request() -> None:
    """A service that reads flask's ``request`` cannot be called for an item of a batch, nor from a test."""
    readers = {
        named(path)
        for path in modules()
        if path.is_relative_to(ROOT / "api")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in {"flask", "flask.globals"}
        if {alias.name for alias in node.names} & {"request", "request_ctx"}
    }
    layers = ("api/http/", "api/auth/", "api/limits/", "api/actions/", "api/dashboard/")
    allowed = {path for path in readers if path.endswith("/routes.py") or path.startswith(layers)}
    hooks = {"api/limits/limited_request.py", "api/audit/recorder.py"}  # they run before and after each request
    assert readers - allowed - hooks == {"api/polling/field_selection.py", "api/polling/poll_handler.py"}
