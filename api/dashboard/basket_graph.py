"""The graph of a basket, drawn as SVG: steps in layers from left to right, an arrow for each need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_BOX_WIDTH: Final = 180
_BOX_HEIGHT: Final = 44
_GAP_X: Final = 56
_GAP_Y: Final = 20
_MARGIN: Final = 8


@dataclass(frozen=True, slots=True)
class Box:
    """One step at its place."""

    id: str
    agent: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class BasketGraph:
    """The boxes, the curves between them, and the size of the picture."""

    boxes: Sequence[Box]
    curves: Sequence[str]
    width: int
    height: int


def steps_of(definition: Mapping[str, Any]) -> Sequence[tuple[str, str, Sequence[str]]]:
    """Return each step of a basket as (id, agent, ids of the steps that it needs)."""
    if definition.get("steps"):
        return [(step.get("id", step["agent"]), step["agent"], step.get("needs", ())) for step in definition["steps"]]
    steps: list[tuple[str, str, Sequence[str]]] = []
    counts: dict[str, int] = {}
    for agent in definition.get("agents", ()):
        counts[agent] = counts.get(agent, 0) + 1
        step_id = agent if counts[agent] == 1 else f"{agent}-{counts[agent]}"
        is_chained = definition.get("execution_strategy") != "parallel" and steps
        steps.append((step_id, agent, (steps[-1][0],) if is_chained else ()))
    return steps


def draw(definition: Mapping[str, Any]) -> BasketGraph:
    """Return the graph of a basket; a step stands one layer after the last of those that it needs."""
    steps = steps_of(definition)
    needs = {step_id: [need for need in needed if need != step_id] for step_id, _, needed in steps}
    layers: dict[str, int] = {}
    for _ in steps:  # as often as there can be layers: a stored basket has no circle
        for step_id, needed in needs.items():
            layers[step_id] = max((layers.get(need, 0) + 1 for need in needed), default=0)
    rows: dict[int, int] = {}
    boxes: dict[str, Box] = {}
    for step_id, agent, _ in steps:
        layer = layers[step_id]
        row = rows[layer] = rows.get(layer, -1) + 1
        x, y = _MARGIN + layer * (_BOX_WIDTH + _GAP_X), _MARGIN + row * (_BOX_HEIGHT + _GAP_Y)
        boxes[step_id] = Box(step_id, agent, x, y)
    curves = [
        _curve(boxes[need], boxes[step_id]) for step_id, needed in needs.items() for need in needed if need in boxes
    ]
    width = max((box.x for box in boxes.values()), default=0) + _BOX_WIDTH + _MARGIN
    height = max((box.y for box in boxes.values()), default=0) + _BOX_HEIGHT + _MARGIN
    return BasketGraph(list(boxes.values()), curves, width, height)


def _curve(start: Box, end: Box) -> str:
    x1, y1 = start.x + _BOX_WIDTH, start.y + _BOX_HEIGHT // 2
    x2, y2 = end.x, end.y + _BOX_HEIGHT // 2
    middle = (x1 + x2) // 2
    return f"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2 - 7} {y2}"
