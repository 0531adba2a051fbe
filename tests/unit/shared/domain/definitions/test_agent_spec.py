"""An agent's specification is read strictly: every fault is reported, with the file and the field."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from shared.domain.definitions.agent_setting import AgentSetting
from shared.domain.definitions.agent_spec import AgentSpec, parse_agent_spec
from shared.errors import SpecError

WHERE = "agents/adder/agent_spec.json"


def a_spec(**changes: Any) -> dict[str, Any]:
    spec = {
        "name": "adder",
        "version": "1.0.0",
        "description": "Adds.",
        "domains": ["maths"],
        "entry": "agent:run",
        "capabilities": {"chainable": True, "memory_access": False, "idempotent": True},
        "input_schema": {"type": "object"},
        "output_schema": {"type": "object"},
        "sample_input": {"a": 1},
        "sample_output": {"sum": 1},
    }
    return spec | changes


def faults_of(raw: object, where: str = WHERE) -> list[str]:
    with pytest.raises(SpecError) as refused:
        parse_agent_spec(raw, where)
    return str(refused.value).splitlines()


def test_what_a_spec_leaves_out_has_its_default() -> None:
    spec = parse_agent_spec(a_spec(), WHERE)
    assert (spec.timeout_s, spec.retry, spec.queue) == (300, "default", "default")


def test_a_spec_is_written_whole_and_in_its_order() -> None:
    document = parse_agent_spec(a_spec(), WHERE).to_json()
    assert list(document) == [field.name for field in dataclasses.fields(AgentSpec)]
    defaults = {"timeout_s": 300, "retry": "default", "queue": "default", "settings": []}
    assert document == a_spec() | defaults | {"unlisted_without_settings": False}


def test_a_setting_is_a_name_or_an_object() -> None:
    optional = {"name": "RATES_URL", "required": False, "description": "Where rates are asked for."}
    spec = parse_agent_spec(a_spec(settings=["RATES_API_KEY", optional]), WHERE)
    assert spec.settings == (AgentSetting("RATES_API_KEY"), AgentSetting(**optional))
    assert spec.to_json()["settings"] == [{"name": "RATES_API_KEY", "required": True, "description": ""}, optional]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ("RATES", "settings must be a list of names of variables"),
        (["rates"], "settings /0 must be the name of a variable, in capital letters, such as RATES_API_KEY"),
        (["MONGODB_URL"], "settings /0 MONGODB_URL is not an agent's own; choose another name"),
        (["BUCKET_X"], "settings /0 BUCKET_X is not an agent's own; choose another name"),
        (["A", "A"], "settings names A twice"),
        ([{"name": "A", "secret": 1}], "settings /0 secret is not a field; the fields are name, required, description"),
        ([{"name": "A", "required": 1}], "settings /0 required must be true or false"),
    ],
)
def test_wrong_settings_are_refused_in_words(settings: object, fault: str) -> None:
    assert faults_of(a_spec(settings=settings)) == [f"{WHERE}: {fault}"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"unlisted_without_settings": "yes"}, "unlisted_without_settings must be true or false"),
        (
            {"unlisted_without_settings": True, "settings": [{"name": "A", "required": False}]},
            "unlisted_without_settings is true but settings names no required one",
        ),
    ],
)
def test_an_agent_can_only_be_unlisted_for_a_setting_that_it_needs(changes: dict[str, Any], fault: str) -> None:
    assert faults_of(a_spec(**changes)) == [f"{WHERE}: {fault}"]
    assert parse_agent_spec(a_spec(unlisted_without_settings=True, settings=["A"]), WHERE).unlisted_without_settings


def test_a_reader_of_a_spec_cannot_change_it() -> None:
    spec = parse_agent_spec(a_spec(), WHERE)
    spec.to_json()["sample_input"]["a"] = 2
    assert spec.sample_input == {"a": 1}


def test_all_faults_are_reported_together_each_with_the_file() -> None:
    raw = a_spec(name="Adder!", domains=[], queue="fast", timeout_s=0)
    del raw["version"]
    faults = faults_of(raw)
    assert all(fault.startswith(f"{WHERE}: ") for fault in faults)
    for field in ("version", "name", "domains", "queue", "timeout_s"):
        assert any(fault.startswith(f"{WHERE}: {field} ") for fault in faults), field


def test_an_unknown_field_is_reported_with_the_nearest_known_one() -> None:
    assert faults_of(a_spec(timeout=5)) == [f"{WHERE}: timeout is not a field; did you mean timeout_s?"]


def test_the_name_must_be_the_folders() -> None:
    assert "'subtracter'" in faults_of(a_spec(), "agents/subtracter/agent_spec.json")[0]


@pytest.mark.parametrize("name", ["adder\n", "Adder", "1adder", "a" * 64, "a.b"])
def test_a_name_must_match_its_pattern_even_if_the_folder_agrees(name: str) -> None:
    assert "name must match" in "".join(faults_of(a_spec(name=name), f"{name}/agent_spec.json"))


def test_a_name_the_engine_logs_under_is_reserved() -> None:
    assert "reserved" in faults_of(a_spec(name="basket_manager"), "basket_manager/agent_spec.json")[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../x"},
        {"name": "adder\n"},
        {"name": "a" * 64},
        {"name": {"$gt": ""}},
        {"version": 1},
        {"description": " "},
        {"domains": "maths"},
        {"domains": ["maths", 1]},
        {"domains": ["maths", "maths"]},
        {"entry": "os:system.run"},
        {"entry": "../agent:run"},
        {"entry": "worker.app:run"},
        {"entry": "agent"},
        {"capabilities": {"chainable": True, "memory_access": False}},
        {"capabilities": {"chainable": 1, "memory_access": False, "idempotent": True}},
        {"capabilities": {"chainable": True, "memory_access": False, "idempotent": True, "fast": True}},
        {"capabilities": None},
        {"input_schema": True},
        {"sample_output": []},
        {"timeout_s": True},
        {"timeout_s": "300"},
        {"timeout_s": -1},
        {"timeout_s": 86_400.5},
        {"timeout_s": math.nan},
        {"timeout_s": math.inf},
        {"retry": "often"},
        {"retry": {"attemps": 3}},
        {"retry": {"wait_s": "x"}},
        {"retry": 3},
        {"queue": ["default"]},
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(changes: dict[str, Any]) -> None:
    field = next(iter(changes))
    assert any(fault.startswith(f"{WHERE}: {field} ") for fault in faults_of(a_spec(**changes)))


@pytest.mark.parametrize(
    "changes",
    [{"timeout_s": 86_400}, {"retry": "none"}, {"retry": {"attempts": 2}}, {"queue": "long"}, {"entry": "work:go"}],
)
def test_a_field_of_the_right_kind_is_taken(changes: dict[str, Any]) -> None:
    spec = parse_agent_spec(a_spec(**changes), WHERE)
    assert {field: getattr(spec, field) for field in changes} == changes


@pytest.mark.parametrize("raw", [None, [], "spec", 3])
def test_a_spec_must_be_an_object(raw: object) -> None:
    assert faults_of(raw) == [f"{WHERE}: must be a JSON object"]
