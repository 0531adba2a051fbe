"""The input of a step, and which graphs are invalid."""

from __future__ import annotations

from typing import Any

import pytest

from shared.domain.definitions.basket import (
    GRAPH,
    PARALLEL,
    Basket,
    BasketStep,
    GraphFault,
    find_graph_faults,
    make_step_ids,
)
from shared.domain.definitions.step_input import InputAmbiguous, InputNotFound, InputTooLarge, input_of
from tests.builders import chain


def graph(*steps: BasketStep, strategy: str = GRAPH) -> Basket:
    return Basket("boring", strategy, steps)


def test_the_first_step_gets_the_runs_input() -> None:
    assert input_of(chain("a", "b"), "a", {"x": 1}, {}, ["y"]) == {"x": 1}


def test_a_later_step_gets_the_previous_output_alone() -> None:
    assert input_of(chain("a", "b"), "b", {"x": 1, "y": 2}, {"a": {"z": 3}}) == {"z": 3}


def test_a_required_field_that_the_output_lacks_is_filled_from_the_runs_input() -> None:
    step_input = input_of(chain("a", "b"), "b", {"x": 1, "y": 2}, {"a": {"z": 3, "y": 4}}, ["x", "y", "w"])
    assert step_input == {"z": 3, "y": 4, "x": 1}


def test_every_parallel_step_gets_the_runs_input() -> None:
    basket = graph(BasketStep("a", "a"), BasketStep("b", "b"), strategy=PARALLEL)
    assert input_of(basket, "b", {"x": 1}, {}) == {"x": 1}


def test_a_step_of_a_graph_gets_the_merged_outputs_of_its_needs() -> None:
    basket = graph(BasketStep("a", "a"), BasketStep("b", "b"), BasketStep("c", "c", ("a", "b")))
    assert input_of(basket, "c", {"x": 1}, {"a": {"n": 1}, "b": {"m": 2}}, ["x"]) == {"n": 1, "m": 2}


@pytest.mark.parametrize("needs", [("a", "b"), ("b", "a")])
def test_two_outputs_with_one_key_are_not_merged_in_silence(needs: tuple[str, ...]) -> None:
    basket = graph(BasketStep("a", "a"), BasketStep("b", "b"), BasketStep("c", "c", needs))
    with pytest.raises(InputAmbiguous, match=f"{needs[0]} and {needs[1]} both give 'm'"):
        input_of(basket, "c", {}, {"a": {"n": 1, "m": 1}, "b": {"m": 1}})


def test_many_references_to_one_large_value_are_too_large_together() -> None:
    def made(count: int) -> dict[str, Any]:
        references = [{"from": "input", "pointer": "/large"}] * count
        basket = graph(BasketStep("a", "a", input={"all": references}))
        return input_of(basket, "a", {"large": "x" * 1_000_000}, {})

    assert len(made(33)["all"]) == 33
    with pytest.raises(InputTooLarge, match="the input of a takes over 33554432 bytes: refer to less of input"):
        made(34)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        ({"from": "input"}, {"x": [1, {"a/b": 2, "~": 3}]}),
        ({"from": "input", "pointer": "/x/0"}, 1),
        ({"from": "input", "pointer": "/x/1/a~1b"}, 2),
        ({"from": "input", "pointer": "/x/1/~0"}, 3),
        ({"from": "a", "pointer": "/n"}, None),
        ({"from": "a", "pointer": "/n", "or": 1}, {"from": "a", "pointer": "/n", "or": 1}),
    ],
    ids=str,
)
def test_an_input_is_a_literal_or_what_a_pointer_names(value: Any, expected: Any) -> None:
    basket = graph(BasketStep("a", "a"), BasketStep("b", "b", ("a",), input={"v": value}))
    assert input_of(basket, "b", {"x": [1, {"a/b": 2, "~": 3}]}, {"a": {"n": None}}) == {"v": expected}


@pytest.mark.parametrize("pointer", ["/y", "/x/2", "/x/01", "/x/-", "/x/0/z", "/x/99999999999", "/"])
def test_a_pointer_to_nothing_is_refused(pointer: str) -> None:
    basket = graph(BasketStep("b", "b", input={"v": {"from": "input", "pointer": pointer}}))
    with pytest.raises(InputNotFound, match="there is nothing at"):
        input_of(basket, "b", {"x": [1, 2]}, {})


def test_a_graph_that_can_run_has_no_faults() -> None:
    diamond = [
        BasketStep("a", "a"),
        BasketStep("b", "b", ("a",)),
        BasketStep("c", "c", ("a",)),
        BasketStep("d", "d", ("b", "c"), input={"n": {"from": "b", "pointer": "/n"}, "m": {"from": "input"}}),
    ]
    assert find_graph_faults(diamond) == []
    assert graph(*diamond).terminal_steps == ("d",)


@pytest.mark.parametrize(
    ("steps", "pointer", "message"),
    [
        ([BasketStep("a", "a"), BasketStep("a", "b")], "/1/id", "given twice"),
        ([BasketStep("a", "a", ("z",))], "/0/needs", "'z', which is no step"),
        ([BasketStep("a", "a", ("a",))], "/0/needs", "a -> a need each other in a circle"),
        (
            [BasketStep("a", "a"), BasketStep("b", "b", ("a", "c")), BasketStep("c", "c", ("b",))],
            "/1/needs",
            "b -> c -> b",
        ),
        (
            [BasketStep("a", "a"), BasketStep("b", "b", input={"v/w~": {"from": "a"}})],
            "/1/input/v~1w~0/from",
            "which it does not need",
        ),
    ],
)
def test_a_graph_that_cannot_run_is_refused_in_words_and_by_place(
    steps: list[BasketStep], pointer: str, message: str
) -> None:
    (fault,) = find_graph_faults(steps)
    assert fault.pointer == pointer
    assert message in fault.message


def test_a_circle_that_other_steps_lead_to_is_named_alone() -> None:
    steps = [BasketStep("a", "a", ("b",)), BasketStep("b", "b", ("c",)), BasketStep("c", "c", ("b",))]
    assert find_graph_faults(steps) == [GraphFault("/1/needs", "the steps b -> c -> b need each other in a circle")]


def test_an_agents_second_place_is_numbered_and_no_id_is_given_twice() -> None:
    assert make_step_ids(["a", "b", "a", "a"]) == ["a", "b", "a-2", "a-3"]
    assert make_step_ids(["a-2", "a", "a"]) == ["a-2", "a", "a-3"]
    assert len(set(make_step_ids(["a", "a", "a-2", "a-2", "a"]))) == 5


def test_references_are_found_at_any_depth() -> None:
    value = {"deep": [{"er": {"from": "a", "pointer": "/n"}}, 1], "whole": {"from": "input", "pointer": None}}
    basket = graph(BasketStep("a", "a"), BasketStep("b", "b", ("a",), input={"v": value, "w": [{"from": "a"}]}))
    assert find_graph_faults(basket.steps) == []
    assert input_of(basket, "b", {"x": 1}, {"a": {"n": 7}}) == {
        "v": {"deep": [{"er": 7}, 1], "whole": {"x": 1}},
        "w": [{"n": 7}],
    }


@pytest.mark.parametrize(
    ("value", "pointer", "words"),
    [
        ({"from": "a", "pointer": "n"}, "/pointer", "begins with a slash: write '/n'"),
        ({"from": "a", "pointer": "/n~2"}, "/pointer", "~0"),
        ({"from": "a", "pointer": 0}, "/pointer", "is text"),
        ({"from": "a", "pointer": "/n", "default": 1}, "/default", "no defaults"),
        ({"from": "a", "path": "/n"}, "/path", "only from and pointer"),
        ({"from": ["a"], "pointer": "/n"}, "/from", "the name of a step"),
        ({"pointer": "/n"}, "", "has no from"),
        ({"step": "a", "pointer": "/n"}, "/step", "only from and pointer"),
        ({"From": "a"}, "/From", "only from and pointer"),
        ({"From": "c", "Pointer": "/n"}, "/From", "only from and pointer"),
        ({"from": "c"}, "/from", "add it to needs"),
        ({"from": "first-stepp", "pointer": "/n"}, "/from", "no step; did you mean 'first-step'?"),
        ({"from": "Input"}, "/from", "did you mean 'input'?"),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_deep", [False, True])
def test_a_reference_that_misses_by_a_hair_is_refused(value: Any, pointer: str, words: str, is_deep: bool) -> None:
    given = {"v": [{"deep": value}]} if is_deep else {"v": value}
    steps = [BasketStep(name, name) for name in ("a", "c", "first-step")]
    faults = find_graph_faults([*steps, BasketStep("b", "b", ("a",), input=given)])
    at = "/3/input/v" + ("/0/deep" if is_deep else "") + pointer
    assert words in {fault.pointer: fault.message for fault in faults}[at]


def test_an_input_that_is_itself_a_reference_is_refused() -> None:
    (fault,) = find_graph_faults([BasketStep("a", "a"), BasketStep("b", "b", ("a",), input={"from": "a"})])
    assert fault.pointer == "/1/input"
    assert "object of fields" in fault.message


def test_fields_may_have_the_names_of_a_reference() -> None:
    """Their values are looked at as those of any other field."""
    given = {"from": {"from": "a", "pointer": "/n"}, "pointer": ["x"]}
    basket = graph(BasketStep("a", "a"), BasketStep("b", "b", ("a",), input=given))
    assert find_graph_faults(basket.steps) == []
    assert input_of(basket, "b", {}, {"a": {"n": 7}}) == {"from": 7, "pointer": ["x"]}


@pytest.mark.parametrize(
    "literal",
    [
        {"from": "2026-01-01", "to": "2026-02-01"},
        {"pointer": "none"},
        {"pointer": 3},
        {"From": "x", "to": "y"},
        {},
        [],
        "a",
    ],
    ids=str,
)
def test_an_object_that_is_no_reference_stays_a_literal(literal: Any) -> None:
    basket = graph(BasketStep("a", "a"), BasketStep("b", "b", ("a",), input={"v": literal, "w": [literal]}))
    assert find_graph_faults(basket.steps) == []
    assert input_of(basket, "b", {}, {"a": {}}) == {"v": literal, "w": [literal]}


def test_a_reference_to_a_step_that_has_no_output_here_is_an_input_that_is_not_found() -> None:
    """A run that was stored before references below the first level may have such a literal."""
    basket = graph(BasketStep("b", "b", input={"v": {"deep": {"from": "gone"}}}))
    with pytest.raises(InputNotFound, match="of gone"):
        input_of(basket, "b", {}, {})


def test_a_misspelt_need_is_refused_with_the_nearest_step() -> None:
    (fault,) = find_graph_faults([BasketStep("first", "a"), BasketStep("b", "b", ("frist",))])
    assert "did you mean 'first'?" in fault.message


def test_no_step_has_the_name_by_which_references_mean_the_runs_input() -> None:
    (fault,) = find_graph_faults((BasketStep("input", "a"),))
    assert (fault.pointer, "references mean input_data by it" in fault.message) == ("/0/id", True)
