"""What a step is given."""

from __future__ import annotations

from shared.domain.basket import step_ids
from shared.domain.passing import given_to
from tests.builders import chain


def test_the_first_step_gets_the_runs_input() -> None:
    assert given_to(chain("a", "b"), "a", {"x": 1}, {}, ["y"]) == {"x": 1}


def test_a_later_step_gets_the_previous_output_alone() -> None:
    assert given_to(chain("a", "b"), "b", {"x": 1, "y": 2}, {"a": {"z": 3}}) == {"z": 3}


def test_a_required_field_that_the_output_lacks_is_filled_from_the_runs_input() -> None:
    given = given_to(chain("a", "b"), "b", {"x": 1, "y": 2}, {"a": {"z": 3, "y": 4}}, ["x", "y", "w"])
    assert given == {"z": 3, "y": 4, "x": 1}


def test_an_agents_second_place_is_numbered_and_no_id_is_given_twice() -> None:
    assert step_ids(["a", "b", "a", "a"]) == ["a", "b", "a-2", "a-3"]
    assert step_ids(["a-2", "a", "a"]) == ["a-2", "a", "a-3"]
    assert len(set(step_ids(["a", "a", "a-2", "a-2", "a"]))) == 5
