"""The files of a new agent: a spec, a module and a test that pass at once, with comments for its author."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from compose.operator_error import OperatorError
from shared.catalogue.agent_catalogue import load_catalogue
from shared.catalogue.agent_entry import SPEC_FILE
from shared.domain.definitions.agent_spec import RESERVED_AGENT_NAMES
from shared.ids import AGENT_NAME_PATTERN

_SPEC: Final = {
    "version": "1.0.0",
    "description": "Greets a person.",
    "domains": ["examples"],
    "entry": "agent:run",
    "capabilities": {"chainable": True, "memory_access": False, "idempotent": True},
    "input_schema": {
        "$comment": "What the agent receives as `given`; a step whose input breaks this fails with input_invalid.",
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "description": "Who is greeted."}},
    },
    "output_schema": {
        "$comment": "What the agent returns; a step whose output breaks this fails with output_invalid.",
        "type": "object",
        "required": ["greeting"],
        "properties": {"greeting": {"type": "string"}},
    },
    "sample_input": {"name": "Ada"},
    "sample_output": {"greeting": "Hello, Ada."},
    "timeout_s": 30,
    "settings": [],
}
_MODULE: Final = '''"""Greets a person."""

from worker.agent_errors import InvalidInputError


def run(given, ctx):
    # `given` is valid by input_schema. An error that no schema can express is told like this:
    name = given["name"].strip()
    if not name:
        raise InvalidInputError("the name is empty")
    # A line of the run's log, which pollers see, and the progress (0 to 1).
    ctx.log("greeted", length=len(name))
    ctx.progress(1.0)
    # ctx.http calls other services, ctx.settings has the variables that `settings` of the spec names.
    # What is returned must be valid by output_schema.
    return {"greeting": f"Hello, {name}."}
'''
_TEST: Final = '''"""Tests of the agent beside this file; run them with pytest, in Bucket's virtual environment."""

from pathlib import Path

import pytest
from worker.agent_errors import InvalidInputError
from worker.testing import FakeContext, run_agent

FOLDER = Path(__file__).parent


def test_a_person_is_greeted():
    ctx = FakeContext()  # name what differs: settings={...}, http=FakeHttp({...}), previous_state={...}
    assert run_agent(FOLDER, {"name": "Grace"}, ctx) == {"greeting": "Hello, Grace."}
    assert ctx.lines == [("info", "greeted", {"length": 5})]


def test_an_empty_name_is_refused():
    with pytest.raises(InvalidInputError):
        run_agent(FOLDER, {"name": " "})
'''


def create_agent(name: str, parent: Path) -> list[Path]:
    """Create the folder of a new agent in ``parent`` and return its files; raises OperatorError and changes nothing."""
    if not AGENT_NAME_PATTERN.fullmatch(name) or name in RESERVED_AGENT_NAMES:
        raise OperatorError(
            f"an agent cannot be called {name!r}",
            fix=f"choose another name, by the pattern {AGENT_NAME_PATTERN.pattern}, such as daily_rates",
        )
    folder = parent / name
    if folder.exists():
        raise OperatorError(f"{folder} exists already", fix="choose another name, or remove that folder yourself")
    if builtin := find_builtin_folder(name):
        raise OperatorError(f"the name {name!r} is taken by {builtin}", fix="choose another name")
    test_file = f"test_{re.sub('[^a-z0-9]', '_', name)}.py"
    files = {SPEC_FILE: json.dumps({"name": name, **_SPEC}, indent=2) + "\n", "agent.py": _MODULE, test_file: _TEST}
    try:
        folder.mkdir(parents=True)
        for file_name, text in files.items():
            (folder / file_name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OperatorError(f"{folder} cannot be written: {error}", fix="give another folder by --dir") from error
    return [folder / file_name for file_name in files]


def find_builtin_folder(name: str) -> Path | None:
    """Return the folder of the built-in agent of this name; None if there is none."""
    catalogue = load_catalogue()
    return catalogue.folder(name) if catalogue.has(name) else None
