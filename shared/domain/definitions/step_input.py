"""How data passes from step to step: what each strategy gives a step as its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.domain.definitions.basket import PARALLEL, RUN_INPUT, SEQUENTIAL, Basket, is_input_reference

_MISSING: Final = object()


class InputNotFound(LookupError):
    """A step's input names a place that the data does not have."""


def input_of(
    basket: Basket,
    step_id: str,
    run_input: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, Any]],
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """Answer the input of ``step_id``; ``outputs`` holds those of its needs. Raises NothingThere.

    Parallel: the run's input. Sequential: the previous step's output, where a ``required`` field that it lacks is
    filled from the run's input, so that a chain need not carry along what only a later agent wants. An explicit
    graph: what the step's ``input`` says, or the merged outputs of its needs.
    """
    step = basket.step(step_id)
    if step.input is not None:
        return {name: _resolve_reference(value, run_input, outputs, name) for name, value in step.input.items()}
    if basket.strategy == PARALLEL or not step.needs:
        return dict(run_input)
    given: dict[str, Any] = {}
    for need in step.needs:
        given.update(outputs[need])
    if basket.strategy == SEQUENTIAL:
        given.update({field: run_input[field] for field in required if field not in given and field in run_input})
    return given


def _resolve_reference(
    value: Any, run_input: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]], name: str
) -> Any:
    if not is_input_reference(value):
        return value
    source = run_input if value["from"] == RUN_INPUT else outputs[value["from"]]
    pointer = value.get("pointer", "")
    found = _resolve_pointer(source, pointer)
    if found is _MISSING:
        raise InputNotFound(f"{name}: there is nothing at {pointer!r} of {value['from']}")
    return found


def _resolve_pointer(value: Any, pointer: str) -> Any:
    """What a JSON Pointer (RFC 6901) names in ``value``; _MISSING where nothing is there."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(key, _MISSING)
        elif isinstance(value, list) and key.isascii() and key.isdigit() and (key == "0" or key[0] != "0"):
            value = value[int(key)] if len(key) < 10 and int(key) < len(value) else _MISSING  # noqa: PLR2004
        else:
            return _MISSING
        if value is _MISSING:
            return _MISSING
    return value
