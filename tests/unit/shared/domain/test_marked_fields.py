"""Marked places of a value by its schema, at any depth and by every way in which a schema can say it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.definitions.basket import GRAPH, PARALLEL, SEQUENTIAL, Basket, BasketStep
from shared.domain.definitions.marked_fields import (
    MASK,
    has_marks,
    marked_paths,
    mask,
    paths_with_texts,
    texts_to_hide,
    unmask,
)
from shared.domain.definitions.marked_flow import literal_marks, marked_in_output, marked_in_run_input

SECRET = {"writeOnly": True}


@pytest.mark.parametrize(
    ("schema", "value", "places"),
    [
        ({"properties": {"a": SECRET, "b": {}}}, {"a": 1, "b": 2}, {("a",)}),
        ({"properties": {"a": {"x-secret": True}}}, {"a": {"b": 1}}, {("a",)}),
        ({"properties": {"a": {"writeOnly": False}}}, {"a": 1}, set()),
        ({"items": {"properties": {"a": SECRET}}}, [{"a": 1}, {"b": 1}, {"a": 2}], {(0, "a"), (2, "a")}),
        ({"prefixItems": [{}, SECRET], "items": {}}, [1, 2, 3], {(1,)}),
        ({"prefixItems": [{}], "items": SECRET}, [1, 2], {(1,)}),
        ({"additionalProperties": SECRET, "properties": {"a": {}}}, {"a": 1, "b": 2}, {("b",)}),
        ({"patternProperties": {"^p": SECRET}}, {"p1": 1}, {("p1",)}),
        ({"anyOf": [{"properties": {"a": SECRET}}, {}]}, {"a": 1}, {("a",)}),
        ({"if": {}, "then": {"properties": {"a": SECRET}}}, {"a": 1}, {("a",)}),
        ({"$defs": {"s": SECRET}, "properties": {"a": {"$ref": "#/$defs/s"}}}, {"a": 1}, {("a",)}),
        ({"$defs": {"s": {"$anchor": "s", **SECRET}}, "properties": {"a": {"$ref": "#s"}}}, {"a": 1}, {("a",)}),
        ({"properties": {"v": SECRET, "n": {"$ref": "#"}}}, {"n": {"n": {"v": 1}}}, {("n", "n", "v")}),
        ({"allOf": [{"$ref": "#"}], "properties": {"a": SECRET}}, {"a": 1}, {("a",)}),
        (SECRET, {"a": 1, "b": 2}, {("a",), ("b",)}),
        ({"properties": {"writeOnly": {"type": "boolean"}}}, {"writeOnly": True}, set()),
    ],
)
def test_marks_are_found(schema: dict[str, Any], value: Any, places: set[Any]) -> None:
    assert marked_paths(schema, value) == places
    assert has_marks(schema) is bool(places)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.text(max_size=3), _JSON, max_size=4), st.data())
def test_what_is_masked_comes_back_whole(value: dict[str, Any], data: st.DataObject) -> None:
    paths = [()]
    for path in paths:
        inner: Any = value
        for key in path:
            inner = inner[key]
        keys = inner if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        paths += [(*path, key) for key in keys]  # type: ignore[arg-type]
    chosen = data.draw(st.sets(st.sampled_from(paths[1:]))) if paths[1:] else set()
    masked, parts = mask(value, chosen)
    assert unmask(masked, parts) == value
    assert all(part == MASK for part in (_at(masked, path) for path in chosen if _is_outermost(path, chosen)))


def _at(value: Any, path: Any) -> Any:
    for key in path:
        value = value[key]
    return value


def _is_outermost(path: Any, paths: Any) -> bool:
    return not any(path[:end] in paths for end in range(len(path)))


def test_texts_are_found_wherever_they_were_put() -> None:
    texts = texts_to_hide({"/a/b": ["long-enough", "short"], "/c": 7}, "input")
    assert texts == {"input.a.b": "long-enough"}
    value = {"x": "<long-enough>", "y": [{"long-enough": 1}, "short"], "z": "clear"}
    assert paths_with_texts(value, texts.values()) == {("x",), ("y", 0)}


class Schemas:
    """The agent ``taker`` marks /pin of its input, ``giver`` marks /code of its output; ``plain`` marks nothing."""

    def marked_input_schema(self, agent: str) -> dict[str, Any] | None:
        return {"properties": {"pin": SECRET, "deep": {"properties": {"pin": SECRET}}}} if agent == "taker" else None

    def marked_output_schema(self, agent: str) -> dict[str, Any] | None:
        return {"properties": {"code": SECRET}} if agent == "giver" else None


def refer(source: str, pointer: str) -> dict[str, str]:
    return {"from": source, "pointer": pointer}


@pytest.mark.parametrize(
    ("strategy", "needs", "step_input", "places"),
    [
        (PARALLEL, (), None, {("pin",)}),
        (SEQUENTIAL, ("first",), None, {("pin",)}),
        (GRAPH, (), {"pin": refer("input", "/list/0/word")}, {("list", 0, "word")}),
        (GRAPH, (), {"deep": refer("input", "/list/1")}, {("list", 1, "pin")}),
        (GRAPH, (), {"pin": refer("input", "")}, {("pin",), ("list",)}),
        (GRAPH, (), {"pin": {"a": [refer("input", "/pin")]}}, {("pin",)}),
        (GRAPH, (), {"other": refer("input", "/pin")}, set()),
        (GRAPH, (), {"pin": refer("input", "/nothing")}, set()),
    ],
)
def test_the_input_of_a_run_is_marked_where_its_values_arrive(
    strategy: str, needs: tuple[str, ...], step_input: Any, places: set[Any]
) -> None:
    steps = (BasketStep("first", "plain"), BasketStep("second", "taker", needs, input=step_input))
    run_input = {"pin": "1", "list": [{"word": "2"}, {"pin": "3"}]}
    assert marked_in_run_input(Basket("b", strategy, steps), run_input, Schemas()) == places


def test_an_output_is_marked_by_its_agent_and_by_those_who_take_it() -> None:
    steps = (
        BasketStep("first", "giver"),
        BasketStep("second", "taker", ("first",), input={"pin": refer("first", "/a")}),
    )
    places = marked_in_output(Basket("b", GRAPH, steps), "first", {"a": 1, "code": 2, "c": 3}, Schemas())
    assert places == {("a",), ("code",)}


def test_a_basket_may_refer_to_a_marked_value_and_not_write_it() -> None:
    schema = Schemas().marked_input_schema("taker")
    assert schema is not None
    assert literal_marks({"pin": refer("input", "/a"), "deep": {"pin": "written"}}, schema) == [("deep", "pin")]
