"""The catalogue finds every agent by path; a wrong spec makes its agent unavailable, and no other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.catalogue.agent_catalogue import load_catalogue
from shared.catalogue.seed_baskets import load_seed_baskets
from shared.errors import AgentNotFound, AgentUnavailable, SpecError

ROOT = Path(__file__).parents[4]
BUILT_IN = sorted(path.parent.name for path in (ROOT / "worker" / "agents").glob("*/agent_spec.json"))


def write_agent(home: Path, name: str, **changes: Any) -> Path:
    folder = home / name
    folder.mkdir()
    spec = {
        "name": name,
        "version": "1.0.0",
        "description": "Tests.",
        "domains": ["test"],
        "entry": "agent:run",
        "capabilities": {"chainable": True, "memory_access": False, "idempotent": True},
        "input_schema": {"type": "object", "required": ["b", "a"]},
        "output_schema": {"type": "object"},
        "sample_input": {"a": 1, "b": 2},
        "sample_output": {},
    }
    (folder / "agent_spec.json").write_text(json.dumps(spec | changes))
    (folder / "agent.py").write_text("def run(given, ctx):\n    return {}\n")
    return folder


def faults_of(agents_dir: Path) -> str:
    return "\n".join(load_catalogue(agents_dir).faults)


def test_the_built_in_agents_are_found_sorted() -> None:
    assert [spec.name for spec in load_catalogue().agents()] == BUILT_IN


def test_reading_the_catalogue_imports_no_worker() -> None:
    program = (
        "import sys; from shared.catalogue.agent_catalogue import load_catalogue; load_catalogue();"
        "print([name for name in sys.modules if name.partition('.')[0] == 'worker'])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_agents_of_a_directory_are_listed_with_the_built_in_ones(tmp_path: Path) -> None:
    folder = write_agent(tmp_path, "zebra")
    catalogue = load_catalogue(tmp_path)
    assert [spec.name for spec in catalogue.agents()] == [*BUILT_IN, "zebra"]
    assert [spec.name for spec in catalogue.agents(domain="test")] == ["zebra"]
    assert catalogue.agents(domain="none") == ()
    assert catalogue.folder("zebra") == folder
    assert catalogue.required_inputs("zebra") == ("b", "a")


def test_hidden_and_private_folders_hold_no_agents(tmp_path: Path) -> None:
    for name in (".git", "__pycache__"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text("agents")
    assert [spec.name for spec in load_catalogue(tmp_path).agents()] == BUILT_IN


def test_input_and_output_are_checked_by_the_agents_own_schemas() -> None:
    catalogue = load_catalogue()
    assert catalogue.find_input_faults("cashflow_analyzer", {"transactions": []}) == []
    (fault,) = catalogue.find_input_faults("cashflow_analyzer", {"transactions": [{"id": 1, "amount": "7"}]})
    assert fault.pointer == "/transactions/0/amount"
    assert [fault.pointer for fault in catalogue.find_output_faults("cashflow_analyzer", {"analysis": 1})] == [
        "/analysis"
    ]


def test_an_unknown_agent_is_reported_with_the_nearest_name() -> None:
    catalogue = load_catalogue()
    assert not catalogue.has("cashflow_analyser")
    with pytest.raises(AgentNotFound) as missing:
        catalogue.agent("cashflow_analyser")
    assert missing.value.message == "agent 'cashflow_analyser' was not found; did you mean 'cashflow_analyzer'?"
    with pytest.raises(AgentNotFound, match="not found"):
        catalogue.find_input_faults("x", {})


def test_the_simulators_name_is_taken(tmp_path: Path) -> None:
    write_agent(tmp_path, "simulate")
    assert "name 'simulate' is taken by" in faults_of(tmp_path)


def test_a_script_is_judged_beyond_its_schema() -> None:
    catalogue = load_catalogue()
    assert catalogue.find_input_faults("simulate", {"script": ["queued:1", "running:2@50", "completed"]}) == []
    (fault,) = catalogue.find_input_faults("simulate", {"script": ["running:1", "sleeping:2"]})
    assert fault.pointer == "/script/1"
    (fault,) = catalogue.find_input_faults("simulate", {"script": ["running:1", "queued:2"]})
    assert (fault.pointer, "queued comes first" in fault.message) == ("/script/1", True)


def test_every_script_of_the_guide_can_be_played() -> None:
    guide = (Path(__file__).parents[4] / "docs" / "simulator.md").read_text(encoding="utf-8")
    scripts = [json.loads(text) for text in re.findall(r"\[\"[^]]*\"\]", guide)]
    assert len(scripts) > 9
    assert [script for script in scripts if load_catalogue().find_input_faults("simulate", {"script": script})] == []


def test_the_faults_of_all_specs_are_reported_together(tmp_path: Path) -> None:
    write_agent(tmp_path, "one", queue="fast")
    write_agent(tmp_path, "two", input_schema={"type": "objct"}, output_schema={"required": ["x"]})
    write_agent(tmp_path, "three", entry="work:run")
    (write_agent(tmp_path, "four") / "agent_spec.json").write_text("{")
    (write_agent(tmp_path, "five") / "agent_spec.json").unlink()
    message = faults_of(tmp_path)
    for part in (
        "one/agent_spec.json: queue must be",
        "two/agent_spec.json: input_schema at /type",
        'two/agent_spec.json: sample_output breaks output_schema at its root: "x" is a required property',
        "three/agent_spec.json: entry is 'work:run' but there is no work.py",
        "four/agent_spec.json: cannot be read",
        "five/agent_spec.json: is missing",
    ):
        assert part in message


def test_a_sample_must_keep_its_own_schema(tmp_path: Path) -> None:
    write_agent(tmp_path, "one", sample_input={"a": 1})
    assert "sample_input breaks input_schema" in faults_of(tmp_path)


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    write_agent(tmp_path, "goal_recommender")
    assert "'goal_recommender' is taken by" in faults_of(tmp_path)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not a directory"):
        load_catalogue(tmp_path / "gone")


def test_a_wrong_spec_makes_its_agent_unavailable_and_no_other(tmp_path: Path) -> None:
    write_agent(tmp_path, "good")
    write_agent(tmp_path, "wrong", queue="fast", domains=["mine"], settings=["KEY"], colour="red")
    catalogue = load_catalogue(tmp_path)
    assert [spec.name for spec in catalogue.agents()] == sorted([*BUILT_IN, "good"])
    assert not catalogue.has("wrong")
    broken = catalogue.broken["wrong"]
    assert broken.reason.startswith("agent_spec.json: colour is not a field")
    assert "agent_spec.json: queue must be one of default, long" in broken.reason
    assert str(tmp_path) not in broken.reason  # it is for clients
    assert broken.domains == ("mine",)
    assert {"queue", "colour"}.isdisjoint(broken.fields)
    assert broken.fields["settings"] == [{"name": "KEY", "required": True, "description": ""}]
    with pytest.raises(AgentUnavailable, match=r"agent 'wrong' is unavailable: agent_spec\.json: colour") as refused:
        catalogue.agent("wrong")
    assert refused.value.retry_after_s == 30
    catalogue.check_known("wrong")


def test_of_two_agents_with_one_name_the_first_stays(tmp_path: Path) -> None:
    write_agent(tmp_path, "goal_recommender", description="the second")
    catalogue = load_catalogue(tmp_path)
    assert catalogue.agent("goal_recommender").description != "the second"
    assert catalogue.broken == {}


def test_each_fault_is_one_warning_in_the_log(tmp_path: Path) -> None:
    write_agent(tmp_path, "goal_recommender")
    write_agent(tmp_path, "wrong", queue="fast")
    with capture_logs() as lines:
        load_catalogue(tmp_path).log_faults()
    assert [(line["event"], line.get("agent"), line["log_level"]) for line in lines] == [
        ("an agent is unavailable", "wrong", "warning"),
        ("an agent is ignored", None, "warning"),
    ]


def test_a_seeded_basket_of_a_broken_agent_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the API could never prepare its store, and would refuse all submits."""
    for name in BUILT_IN:
        write_agent(tmp_path, name, queue="fast" if name == "goal_recommender" else "default")
    monkeypatch.setattr("shared.catalogue.agent_catalogue._BUILTIN_AGENTS_DIR", tmp_path)
    catalogue = load_catalogue()
    assert list(catalogue.broken) == ["goal_recommender"]
    assert "goal_test" in [basket["name"] for basket in load_seed_baskets(catalogue)]


def test_the_seeded_baskets_are_those_of_the_contract() -> None:
    both = ["cashflow_analyzer", "goal_recommender"]
    baskets = load_seed_baskets(load_catalogue())
    assert {basket["name"]: basket["agents"] for basket in baskets} == {
        "working_test": ["cashflow_analyzer"],
        "goal_test": ["goal_recommender"],
        "chained_test": both,
        "finance_daily_check": both,
        "multi_agent_test": both,
        "coordinator_test": ["financial_coordinator"],
        "financial_operations": ["financial_coordinator", "cashflow_analyzer"],
        "simulate": ["simulate"],
        "gurukul_practice": ["vedic_quiz_agent", "gurukul_feedback"],
        "gurukul_report": ["gurukul_trend", "gurukul_anomaly", "gurukul_feedback"],
        "text_to_json_test": ["text_to_json"],
        "vehicle_checkup": ["auto_diagnostics", "vehicle_maintenance", "fuel_efficiency"],
        "workflow_optimizer": ["workflow_agent", "schedule_agent"],
        "statement_check": ["statement_import", *both],
    }
    parallel = [basket["name"] for basket in baskets if basket["execution_strategy"] == "parallel"]
    assert parallel == ["vehicle_checkup"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": "../x"}, "name must match"),
        ({"agents": ["cashflow_analyser"]}, "did you mean 'cashflow_analyzer'"),
        ({"agents": []}, "at least one"),
        ({"execution_strategy": "chaos"}, "execution_strategy must be"),
        ({"description": None}, "description must be"),
        ({"colour": "red"}, "exactly"),
    ],
)
def test_a_seeded_basket_that_is_wrong_is_refused(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    basket = {"name": "b", "description": "", "agents": ["goal_recommender"], "execution_strategy": "sequential"}
    (tmp_path / "b.json").write_text(json.dumps(basket | changes))
    with pytest.raises(SpecError, match=fault):
        load_seed_baskets(load_catalogue(), tmp_path)


def test_two_files_of_one_baskets_name_are_refused(tmp_path: Path) -> None:
    basket = {"name": "b", "description": "", "agents": ["x"], "execution_strategy": "sequential"}
    for file in ("one.json", "two.json"):
        (tmp_path / file).write_text(json.dumps(basket))
    with pytest.raises(SpecError, match=r"two\.json: name 'b' is taken"):
        load_seed_baskets(folder=tmp_path)


def _put_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _put_device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def _put_large_file(file: Path) -> None:
    os.truncate(file, 5 * 1024 * 1024)


def _put_deep_schema(file: Path) -> None:
    spec = json.loads(file.read_text()) | {"input_schema": "@"}
    file.write_text(json.dumps(spec).replace('"@"', '{"not": ' * 300 + "{}" + "}" * 300))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_put_pipe, "no regular file"),
        (_put_device, "no regular file"),
        (_put_large_file, "at most 4194304 are read"),
        (_put_deep_schema, "nested over 250 levels"),
    ],
)
def test_a_spec_that_cannot_be_read_is_a_fault_of_its_agent_alone(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    write_agent(tmp_path, "good")
    spoil(write_agent(tmp_path, "bad") / "agent_spec.json")

    catalogue = load_catalogue(tmp_path)

    assert catalogue.has("good")
    assert reason in catalogue.broken["bad"].reason
