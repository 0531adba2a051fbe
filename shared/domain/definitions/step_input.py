"""Builds the input of a step from the run's input and the outputs of other steps, by the basket's strategy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.domain.definitions.basket import PARALLEL, SEQUENTIAL, Basket
from shared.domain.definitions.input_reference import RUN_INPUT, is_input_reference
from shared.json_pointer import parse_pointer

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class InputNotFound(LookupError):
    """A step's input refers to a place that the data does not have."""


def input_of(
    basket: Basket,
    step_id: str,
    run_input: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, Any]],
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the input of ``step_id``; ``outputs`` holds the outputs of its needs. Raises InputNotFound.

    Parallel: the run's input. Sequential: the previous step's output; a ``required`` field that it lacks is filled
    from the run's input, so that a chain need not pass on what only a later agent needs. Graph: the fields of the
    step's ``input`` if it has one, else the merged outputs of its needs.
    """
    step = basket.step(step_id)
    if step.input is not None:
        return {name: _resolve_references(value, run_input, outputs, name) for name, value in step.input.items()}
    if basket.strategy == PARALLEL or not step.needs:
        return dict(run_input)
    step_input: dict[str, Any] = {}
    for need in step.needs:
        step_input.update(outputs[need])
    if basket.strategy == SEQUENTIAL:
        step_input.update(
            {field: run_input[field] for field in required if field not in step_input and field in run_input}
        )
    return step_input


def _resolve_references(
    value: Any, run_input: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]], name: str
) -> Any:
    """Return ``value`` with the references at any depth of it replaced by the data that they refer to."""
    if isinstance(value, list):
        return [_resolve_references(inner, run_input, outputs, name) for inner in value]
    if not isinstance(value, Mapping):
        return value
    if not is_input_reference(value):
        return {key: _resolve_references(inner, run_input, outputs, name) for key, inner in value.items()}
    source, pointer = value["from"], value.get("pointer") or ""
    try:
        return _resolve_pointer(run_input if source == RUN_INPUT else outputs[source], pointer)
    except LookupError:
        raise InputNotFound(f"{name}: there is nothing at {pointer!r} of {source}") from None


def _resolve_pointer(value: Any, pointer: str) -> Any:
    """Return the part of ``value`` at a JSON Pointer (RFC 6901); raises LookupError if there is none."""
    for key in parse_pointer(pointer):
        if isinstance(value, list) and _INDEX.fullmatch(key):
            value = value[int(key)]
        elif isinstance(value, Mapping):
            value = value[key]
        else:
            raise LookupError(key)
    return value
