"""The picture of a basket: a step stands one layer after the last of those that it needs."""

from __future__ import annotations

from typing import Any

from api.dashboard.basket_graph import draw, steps_of


def columns(definition: dict[str, Any]) -> dict[str, int]:
    places = {box.id: box.x for box in draw(definition).boxes}
    order = sorted(set(places.values()))
    return {step: order.index(x) for step, x in places.items()}


def test_a_sequence_is_a_line_and_an_agent_that_comes_twice_has_two_ids() -> None:
    definition = {"agents": ["a", "b", "a"], "execution_strategy": "sequential"}
    assert columns(definition) == {"a": 0, "b": 1, "a-2": 2}
    assert len(draw(definition).curves) == 2


def test_parallel_agents_stand_below_each_other() -> None:
    graph = draw({"agents": ["a", "b", "c"], "execution_strategy": "parallel"})
    assert len({box.x for box in graph.boxes}) == 1
    assert len({box.y for box in graph.boxes}) == 3
    assert graph.curves == []


def test_a_step_stands_after_the_last_that_it_needs_whatever_their_order() -> None:
    definition = {
        "steps": [
            {"id": "last", "agent": "d", "needs": ["middle", "first"]},
            {"id": "first", "agent": "a"},
            {"id": "middle", "agent": "b", "needs": ["first"]},
        ]
    }
    assert columns(definition) == {"first": 0, "middle": 1, "last": 2}
    graph = draw(definition)
    assert len(graph.curves) == 3
    assert all(box.x + 180 <= graph.width and box.y + 44 <= graph.height for box in graph.boxes)


def test_a_step_without_an_id_has_that_of_its_agent() -> None:
    assert steps_of({"steps": [{"agent": "a"}]}) == [("a", "a", ())]
