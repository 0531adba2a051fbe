"""The form of a run: a field for each property of the input schema, and what was typed as the input of the run."""

from __future__ import annotations

from typing import Any

import pytest

from api.dashboard.run_form import InvalidField, fields_of, parse_fields

SCHEMA: dict[str, Any] = {
    "required": ["name", "amount"],
    "properties": {
        "note": {"type": "string"},
        "name": {"type": "string", "description": "Who."},
        "amount": {"type": "number"},
        "urgent": {"type": "boolean"},
        "currency": {"enum": ["EUR", "USD"]},
        "rows": {"type": "array"},
    },
}


def test_each_type_has_its_control_and_what_is_required_comes_first() -> None:
    fields = fields_of([SCHEMA], {})
    assert [each.name for each in fields[:2]] == ["name", "amount"]
    kinds = {each.name: each.kind for each in fields}
    assert kinds == {
        "note": "text", "name": "text", "amount": "number", "urgent": "boolean", "currency": "choice", "rows": "json"
    }  # fmt: skip


def test_what_is_filled_in_and_sent_back_is_the_same_input() -> None:
    value = {"name": "Ö", "amount": 1.50, "urgent": False, "currency": "USD", "rows": [{"a": None}], "more": {"b": 1}}
    fields = fields_of([SCHEMA], value)
    assert parse_fields(fields, {each.control: each.value for each in fields}) == value


def test_an_empty_field_is_left_out_unless_it_must_be_there() -> None:
    fields = fields_of([SCHEMA], {})
    assert parse_fields(fields, {each.control: "" for each in fields}) == {"name": ""}


def test_a_text_that_looks_like_a_number_stays_a_text() -> None:
    assert parse_fields(fields_of([SCHEMA], {}), {"field.name": "007"}) == {"name": "007"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("amount", "a lot", "amount must be a number"), ("urgent", "yes", "urgent must be true or false"),
     ("rows", "[1", "rows must be JSON")],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_it_must_be(name: str, text: str, words: str) -> None:
    with pytest.raises(InvalidField, match=words):
        parse_fields(fields_of([SCHEMA], {}), {f"field.{name}": text})


def test_several_first_agents_share_one_form() -> None:
    other = {"properties": {"name": {"type": "number"}, "year": {"type": "integer"}}}
    fields = {each.name: each.kind for each in fields_of([SCHEMA, other], {})}
    assert (fields["name"], fields["year"]) == ("text", "number")


def test_a_property_that_may_be_null_has_the_control_of_its_type() -> None:
    types = {"a": ["string", "null"], "b": ["null", "number"], "c": ["string", "number"], "d": 5}
    fields = fields_of([{"properties": {name: {"type": kinds} for name, kinds in types.items()}}], {"a": None})
    assert {each.name: (each.kind, each.value) for each in fields} == {
        "a": ("text", ""), "b": ("number", ""), "c": ("json", ""), "d": ("json", "")
    }  # fmt: skip
