"""docs/errors.md names every code that an integrator can meet, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.http.body_key_checks import CREDENTIAL_KEYS
from api.openapi.problem_texts import load_problem_texts
from shared import errors

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\|(?: (\d{3}) \|)? `((?!error_code`)[a-z_]+)` \|", re.MULTILINE)


def of_requests(kind: type[errors.BucketError]) -> Iterator[tuple[str, str]]:
    yield str(kind.http_status), kind.error_code
    for child in kind.__subclasses__():
        yield from of_requests(child)


def of_runs() -> Iterator[str]:
    """Yield the code of each RunError that is made: ``step_error(step, code, ...)`` or ``RunError(code, ...)``."""
    place_of_code = {"RunError": 0, "step_error": 1}
    for path in (*(ROOT / "worker").rglob("*.py"), *(ROOT / "shared/domain").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in place_of_code:
                code = node.args[place_of_code[node.func.id]] if node.args else None
                if isinstance(code, ast.Constant):
                    yield code.value


def test_the_page_names_every_code_of_a_request_with_its_status() -> None:
    rows = {row for row in ROW.findall((ROOT / "docs/errors.md").read_text(encoding="utf-8")) if row[0]}
    assert rows == {*of_requests(errors.RequestError), *of_requests(errors.ServiceError)}


@pytest.mark.parametrize("page", ["api.md", "errors.md"])
def test_the_pages_name_every_key_that_is_refused_as_a_credential(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lists = [re.findall(r"`([a-z_]+)`", sentence) for sentence in re.findall(r"(?<=`)password`[^.|]*", text)]
    found = {key.replace("_", "") for key in ["password", *lists[0]]}
    assert found == CREDENTIAL_KEYS


def test_every_code_has_its_text_at_the_address_of_its_type() -> None:
    codes = {code for _, code in (*of_requests(errors.RequestError), *of_requests(errors.ServiceError))}
    assert load_problem_texts().keys() == codes | set(of_runs())


def test_the_page_names_every_code_of_a_run() -> None:
    rows = {code for status, code in ROW.findall((ROOT / "docs/errors.md").read_text(encoding="utf-8")) if not status}
    assert rows == set(of_runs())
    assert {"agent_error", "worker_lost", "output_too_large", "timeout", "deadline_exceeded", "cancelled"} <= rows
