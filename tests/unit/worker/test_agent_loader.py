"""An agent is loaded from its own folder only; the error of a wrong one has its name."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.catalogue.agent_catalogue import load_catalogue
from shared.domain.definitions.unavailability import Unavailability
from shared.errors import SpecError
from worker.agent_loader import LoadedAgents, load_agents, load_available_agents


def write_agent(home: Path, name: str, source: str, entry: str = "agent:run", **more: Any) -> Path:
    folder = home / name
    folder.mkdir()
    spec = {
        "name": name,
        "version": "2.1.0",
        "description": "Tests.",
        "domains": ["test"],
        "entry": entry,
        "capabilities": {"chainable": True, "memory_access": False, "idempotent": True},
        "input_schema": {"type": "object"},
        "output_schema": {"type": "object"},
        "sample_input": {},
        "sample_output": {},
    }
    (folder / "agent_spec.json").write_text(json.dumps(spec | more))
    (folder / f"{entry.partition(':')[0]}.py").write_text(source)
    return folder


def run(home: Path, name: str, given: dict[str, Any] | None = None) -> Any:
    ctx: Any = None
    return load_agents(load_catalogue(home))[name].run(given or {}, ctx)


def refusal_message(home: Path) -> str:
    with pytest.raises(SpecError) as refused:
        load_agents(load_catalogue(home))
    return str(refused.value)


def test_the_built_in_agents_load() -> None:
    catalogue = load_catalogue()
    assert [agent.spec for agent in load_agents(catalogue).values()] == list(catalogue.agents())


def test_agents_of_the_same_file_name_do_not_collide(tmp_path: Path) -> None:
    for name in ("a-b", "a_b"):
        write_agent(tmp_path, name, f"def run(given, ctx):\n    return {{'name': {name!r}, 'module': __name__}}\n")
    first, second = run(tmp_path, "a-b"), run(tmp_path, "a_b")
    assert (first["name"], second["name"]) == ("a-b", "a_b")
    assert first["module"] != second["module"]


def test_an_agent_may_be_split_over_files_of_its_folder(tmp_path: Path) -> None:
    folder = write_agent(tmp_path, "split", "from .sums import add\ndef run(given, ctx):\n    return add(1, 2)\n")
    (folder / "sums.py").write_text("def add(a, b):\n    return {'sum': a + b}\n")
    assert run(tmp_path, "split") == {"sum": 3}


def test_an_entry_may_name_another_file_and_function(tmp_path: Path) -> None:
    write_agent(tmp_path, "named", "def go(given, ctx):\n    return given\n", entry="work:go")
    assert run(tmp_path, "named", {"a": 1}) == {"a": 1}


def test_a_coroutine_is_run_to_its_end(tmp_path: Path) -> None:
    write_agent(
        tmp_path,
        "async_one",
        "import asyncio\nasync def run(given, ctx):\n    await asyncio.sleep(0)\n    return {'done': True}\n",
    )
    assert run(tmp_path, "async_one") == {"done": True}
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_dataclass_in_an_agent_finds_its_own_module(tmp_path: Path) -> None:
    write_agent(
        tmp_path,
        "modern",
        "from __future__ import annotations\nfrom dataclasses import asdict, dataclass\n"
        "@dataclass\nclass Out:\n    n: int\n"
        "def run(given, ctx):\n    return asdict(Out(1))\n",
    )
    assert run(tmp_path, "modern") == {"n": 1}


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def other(given, ctx): ...\n", "agent.py has no callable 'run'"),
        ("run = 3\n", "agent.py has no callable 'run'"),
        ("def run(given): ...\n", "must take two arguments"),
        ("def run(given, ctx, more): ...\n", "must take two arguments"),
        ("def run(:\n", "SyntaxError"),
        ("import a_module_that_is_not_there\n", "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        (
            "class Odd(BaseException):\n    def __str__(self):\n        1 / 0\nraise Odd\n",
            "Odd: <exception str() failed>",
        ),
        ("def __getattr__(name):\n    raise RuntimeError('no')\n", "RuntimeError: no"),
    ],
)
def test_an_agent_that_cannot_be_loaded_names_itself(tmp_path: Path, source: str, fault: str) -> None:
    write_agent(tmp_path, "wrong", source)
    message = refusal_message(tmp_path)
    assert message.startswith("agent 'wrong': ")
    assert fault in message


def test_all_agents_that_cannot_be_loaded_are_reported_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_agent(tmp_path, name, "run = None\n")
    assert [line.split(":")[0] for line in refusal_message(tmp_path).splitlines()] == ["agent 'one'", "agent 'two'"]


GOOD = "def run(given, ctx):\n    return dict(ctx.settings) if ctx else {}\n"


@pytest.fixture(autouse=True)
def law_agent_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAW_AGENT_API_URL", "http://law.example")


def load_available(home: Path) -> LoadedAgents:
    return load_available_agents(load_catalogue(home))


def test_an_agent_that_cannot_be_loaded_is_unavailable_and_no_other(tmp_path: Path) -> None:
    write_agent(tmp_path, "good", GOOD)
    write_agent(tmp_path, "broken", "# an agent\nimport a_module_that_is_not_there\n")
    write_agent(tmp_path, "wrong", GOOD, queue="fast")
    with capture_logs() as lines:
        loaded = load_available(tmp_path)
    assert set(loaded.agents) - {spec.name for spec in load_catalogue().agents()} == {"good"}
    assert loaded.agents["good"].run({}, None) == {}  # type: ignore[arg-type]
    reason = "agent.py cannot be loaded: ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
    assert loaded.unavailable["broken"].reason.startswith(f"{reason} (agent.py line 2); ")
    assert "bucketd agents install" in loaded.unavailable["broken"].reason
    assert loaded.unavailable["wrong"] == Unavailability("agent_spec.json: queue must be one of default, long")
    assert sorted(line["agent"] for line in lines) == ["broken", "wrong"]
    assert not [name for name in sys.modules if name.startswith("_bucket_agent_broken")]


def test_an_agent_that_is_not_listed_until_it_is_set_up_is_no_warning(tmp_path: Path) -> None:
    for name, is_unlisted in (("hidden", True), ("shown", False)):
        write_agent(tmp_path, name, GOOD, settings=["RATES_API_KEY"], unlisted_without_settings=is_unlisted)
    with capture_logs() as lines:
        load_available(tmp_path)
    assert {line["agent"]: line["log_level"] for line in lines} == {"hidden": "info", "shown": "warning"}


def test_an_agent_whose_required_setting_is_missing_is_unavailable_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import os\nos.environ['RATES_API_KEY']\n" + GOOD
    optional = {"name": "RATES_REGION", "required": False}
    write_agent(tmp_path, "rates", source, settings=["RATES_API_KEY", optional])
    monkeypatch.setenv("RATES_API_KEY", "")  # as compose passes a variable that has no value
    missing = Unavailability("the required setting RATES_API_KEY is not set", lacks_settings=True)
    assert load_available(tmp_path).unavailable == {"rates": missing}
    monkeypatch.setenv("RATES_API_KEY", "s3cret")
    loaded = load_available(tmp_path)
    assert loaded.unavailable == {}
    assert dict(loaded.agents["rates"].settings) == {"RATES_API_KEY": "s3cret"}


def test_wrong_specs_and_wrong_code_are_reported_together(tmp_path: Path) -> None:
    write_agent(tmp_path, "one", GOOD, queue="fast")
    write_agent(tmp_path, "two", "run = None\n")
    write_agent(tmp_path, "simulate", GOOD)
    with pytest.raises(SpecError) as refused:
        load_agents(load_catalogue(tmp_path))
    for part in ("one/agent_spec.json: queue must be", "agent 'two': ", "name 'simulate' is taken by"):
        assert part in refused.value.message


def test_no_text_of_an_agent_has_the_value_of_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = 'a/very/top"secret'
    monkeypatch.setenv("RATES_API_KEY", secret)
    source = "import os\nraise OSError(2, 'no', '/srv/keys/' + os.environ['RATES_API_KEY'])\n"
    write_agent(tmp_path, "leaky", source, settings=["RATES_API_KEY"])
    write_agent(tmp_path, "rates", GOOD, settings=["RATES_API_KEY"])
    with capture_logs() as lines:
        loaded = load_available(tmp_path)
    assert "FileNotFoundError" in loaded.unavailable["leaky"].reason
    assert "/srv" not in loaded.unavailable["leaky"].reason
    agent = loaded.agents["rates"]
    assert repr(agent.settings) == "AgentSettings(RATES_API_KEY)"
    shown = f"{loaded} {agent} {agent.settings} {lines}"
    assert "secret" not in shown
