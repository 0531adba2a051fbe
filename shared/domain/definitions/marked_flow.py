"""Marked fields in the flow of data: what becomes of the marks if a value goes on into other steps.

The run's input, and the output of each step, are protected as the union of the schemas of all agents that get them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from shared.domain.definitions.basket import PARALLEL, Basket, BasketStep
from shared.domain.definitions.input_reference import RUN_INPUT, is_input_reference
from shared.domain.definitions.marked_fields import Path, marked_paths, without_nested
from shared.domain.definitions.step_input import resolve_pointer
from shared.json_pointer import parse_pointer


class MarkedSchemas(Protocol):
    """The schemas of the agents that mark fields."""

    def marked_input_schema(self, agent: str) -> Mapping[str, Any] | None:
        """Return the agent's input schema; None if it marks nothing."""

    def marked_output_schema(self, agent: str) -> Mapping[str, Any] | None:
        """Return the agent's output schema; None if it marks nothing."""


def agents_with_marks(basket: Basket, schemas: MarkedSchemas) -> list[str]:
    """Return the agents of ``basket`` whose schemas mark a field."""
    return [
        agent
        for agent in dict.fromkeys(basket.agents)
        if schemas.marked_input_schema(agent) is not None or schemas.marked_output_schema(agent) is not None
    ]


def marked_in_run_input(basket: Basket, run_input: Mapping[str, Any], schemas: MarkedSchemas) -> set[Path]:
    """Return the places of a run's input that an agent which gets them marks."""
    return _marked_by_takers(basket, RUN_INPUT, run_input, schemas)


def marked_in_output(basket: Basket, step: str, output: Mapping[str, Any], schemas: MarkedSchemas) -> set[Path]:
    """Return the places of a step's output that its agent, or an agent which gets them, marks."""
    found = _marked_by_takers(basket, step, output, schemas)
    if (schema := schemas.marked_output_schema(basket.step(step).agent)) is not None:
        found |= marked_paths(schema, output)
    return found


def literal_marks(step_input: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Path]:
    """Return the marked places of a step's input, as a basket writes it, that are written out and do not refer."""
    references = {path for path, _ in _references_in(step_input, ())}
    return sorted(
        (
            path
            for path in marked_paths(schema, step_input)
            if not any(path[: len(reference)] == reference for reference in references)
        ),
        key=str,
    )


def _marked_by_takers(basket: Basket, source: str, value: Mapping[str, Any], schemas: MarkedSchemas) -> set[Path]:
    found: set[Path] = set()
    for step in basket.steps:
        schema = schemas.marked_input_schema(step.agent)
        if schema is None:
            continue
        if step.input is not None:
            for path, reference in _references_in(step.input, ()):
                if reference["from"] == source:
                    found |= _marked_by_reference(schema, path, reference.get("pointer") or "", value)
        elif _gets_whole(basket, step, source):
            found |= marked_paths(schema, value)
    return set(without_nested(found))


def _gets_whole(basket: Basket, step: BasketStep, source: str) -> bool:
    """Return whether the source is merged into the step's input: in a chain the run's input may fill gaps of each."""
    return source == RUN_INPUT or (basket.strategy != PARALLEL and source in step.needs)


def _marked_by_reference(schema: Mapping[str, Any], path: Path, pointer: str, value: Mapping[str, Any]) -> set[Path]:
    """Return the places of ``value`` that are marked where a reference to ``pointer`` puts them: at ``path``."""
    try:
        base = _typed_path(value, pointer)
        step_input: Any = resolve_pointer(value, pointer)
    except LookupError:  # the step itself will say that there is nothing
        return set()
    for key in reversed(path):
        step_input = {key: step_input} if isinstance(key, str) else [None] * key + [step_input]
    marks = marked_paths(schema, step_input)
    if any(mark == path[: len(mark)] for mark in marks):
        return {base} if base else {(key,) for key in value}
    return {base + mark[len(path) :] for mark in marks if mark[: len(path)] == path}


def _typed_path(value: Any, pointer: str) -> Path:
    path: list[str | int] = []
    for token in parse_pointer(pointer):
        key: str | int = int(token) if isinstance(value, list) else token
        path.append(key)
        value = value[key]
    return tuple(path)


def _references_in(value: Any, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _references_in(inner, (*path, index))
    elif isinstance(value, Mapping) and is_input_reference(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _references_in(inner, (*path, key))
