"""Schema validator: schemas are checked themselves, fetch nothing, and report faults that a person can act on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from bson.int64 import Int64

from shared.catalogue.schema_validator import FAULTS_MAX, MESSAGE_MAX, CompiledSchema, SchemaFault
from shared.errors import SpecError


def faults(schema: dict[str, Any], value: Any) -> list[SchemaFault]:
    return CompiledSchema(schema, "a schema").find_faults(value)


def test_a_fault_is_reported_with_its_pointer() -> None:
    schema = {"properties": {"a/b~c": {"items": {"type": "number"}}}}
    assert faults(schema, {"a/b~c": [1, "x"]}) == [SchemaFault("/a~1b~0c/1", '"x" is not of type "number"')]


def test_a_pointer_to_the_whole_value_is_empty() -> None:
    assert faults({"required": ["a"]}, {}) == [SchemaFault("", '"a" is a required property')]


def test_every_fault_is_reported() -> None:
    found = faults({"required": ["a", "b"], "properties": {"c": {"minimum": 3}}}, {"c": 1})
    assert [fault.pointer for fault in found] == ["", "", "/c"]


def test_of_a_thousand_faults_fifty_are_reported() -> None:
    assert len(faults({"items": {"type": "string"}}, list(range(1000)))) == FAULTS_MAX


def test_a_large_value_is_cut_and_the_reason_kept() -> None:
    (fault,) = faults({"properties": {"a": {"maxLength": 3}}}, {"a": "secret" * 1000})
    assert len(fault.message) <= MESSAGE_MAX
    assert fault.message.endswith("is longer than 3 characters")


def test_many_unexpected_names_do_not_make_a_long_message() -> None:
    (fault,) = faults({"additionalProperties": False}, {f"name{number}": 1 for number in range(1000)})
    assert len(fault.message) <= MESSAGE_MAX


@pytest.mark.parametrize("ref", ["http://127.0.0.1:9/x", "https://example.org/s", "other.json"])
def test_a_reference_that_leads_outside_is_refused(ref: str) -> None:
    with pytest.raises(SpecError, match="only refer within itself"):
        CompiledSchema({"$id": "http://h.example/z", "$ref": ref}, "a schema")


def test_a_reference_to_a_file_is_refused_and_its_content_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret.json"
    file.write_text('{"const": "hunter2"}')
    with pytest.raises(SpecError, match="only refer within itself") as refused:
        CompiledSchema({"$ref": file.as_uri()}, "a schema")
    assert "hunter2" not in str(refused.value)


def test_a_reference_within_the_schema_is_followed() -> None:
    schema = {"$defs": {"n": {"type": "number"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
    assert faults(schema, {"a": 1}) == []
    assert faults(schema, {"a": ""}) != []


@pytest.mark.parametrize(
    ("schema", "at"),
    [
        ({"type": "objct"}, "/type"),
        ({"required": "a"}, "/required"),
        ({"properties": {"a": {"pattern": "("}}}, "/properties/a/pattern"),
        ({"pattern": "(?=a)b"}, "/pattern"),
        ({"pattern": r"(a)\1"}, "/pattern"),
        ({"$ref": "#/$defs/gone"}, ""),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ""),
        ({"$schema": 3}, ""),
    ],
)
def test_an_invalid_schema_is_refused(schema: dict[str, Any], at: str) -> None:
    with pytest.raises(SpecError, match=f"^a schema.*{at}"):
        CompiledSchema(schema, "a schema")


def test_a_pattern_cannot_be_made_to_backtrack() -> None:
    began = time.process_time()
    assert len(faults({"pattern": "^(a+)+$"}, "a" * 5000 + "!")) == 1
    assert time.process_time() - began < 1


def test_a_broken_pattern_is_reported_by_its_description_if_it_has_one() -> None:
    phases = {"type": "array", "items": {"pattern": "^(on|off)$", "description": "on or off."}}
    within = {"properties": {"a": {"$ref": "#/$defs/phases"}}, "$defs": {"phases": phases}}
    for schema in ({"properties": {"a": phases}}, within):
        (fault,) = faults(schema, {"a": ["on", "of"]})
        assert (fault.pointer, fault.message) == ("/a/1", '"of" is not as described: on or off.')
    assert faults({"pattern": "^on$"}, "of")[0].message == '"of" does not match "^on$"'


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"a": object()}, {1: 2}, {"a": 2**64}, {"a": {1, 2}}])
def test_a_value_that_is_no_json_is_a_fault_and_raises_nothing(value: Any) -> None:
    (fault,) = faults({"type": "object"}, value)
    assert fault.message.startswith("is not JSON: ")


def test_a_value_too_deep_for_a_recursive_schema_is_a_fault_and_not_the_end_of_the_process() -> None:
    value: dict[str, Any] = {}
    deepest = value
    for _ in range(100_000):
        deepest["a"] = {}
        deepest = deepest["a"]
    (fault,) = faults({"properties": {"a": {"$ref": "#"}}}, value)
    while value:  # taken apart by hand: Python frees nested values by recursion
        value = value.popitem()[1]
    assert "is not JSON" in fault.message


def test_a_subclass_that_the_driver_makes_is_checked_as_what_it_is() -> None:
    assert faults({"properties": {"a": {"maximum": 5}}}, {"a": Int64(3)}) == []
    assert [fault.pointer for fault in faults({"properties": {"a": {"maximum": 5}}}, {"a": Int64(9)})] == ["/a"]


def test_only_the_first_fault_of_a_large_value_is_searched_and_reported() -> None:
    found = faults({"items": {"required": ["id", "amount"]}}, [{}] * 300_000)
    assert (found[0].pointer, len(found)) == ("/0", 1)


def test_a_large_value_that_breaks_a_schema_with_branches_is_reported_without_a_place() -> None:
    branches = {"anyOf": [{"items": {"required": ["id"]}}, {"items": {"required": ["amount"]}}]}
    assert faults(branches, [{}] * 10_000) == [SchemaFault("", "breaks the schema; too large to say where")]
    assert faults(branches, [{"id": 1}] * 10_000) == []
    assert [fault.pointer for fault in faults(branches, [{}])] == [""]
