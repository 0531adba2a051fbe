"""Builds the input of a step from the run's input and the outputs of other steps, by the basket's strategy."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from shared.domain.definitions.basket import PARALLEL, SEQUENTIAL, Basket
from shared.domain.definitions.input_reference import RUN_INPUT, is_input_reference
from shared.json_pointer import parse_pointer

STEP_INPUT_MAX_BYTES: Final = 32 * 1024 * 1024
# So few cannot exceed it: an output takes at most 4 MiB.
_UNMEASURED_REFERENCES_MAX: Final = 7
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class StepInputError(Exception):
    """The input of a step cannot be made."""


class InputNotFound(StepInputError):
    """A step's input refers to a place that the data does not have."""


class InputAmbiguous(StepInputError):
    """Two outputs that are to be merged have the same key."""


class InputTooLarge(StepInputError):
    """A step's input would take more than :data:`STEP_INPUT_MAX_BYTES`."""


def input_of(
    basket: Basket,
    step_id: str,
    run_input: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, Any]],
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the input of ``step_id``; ``outputs`` holds the outputs of its needs. Raises StepInputError.

    Parallel: the run's input. Sequential: the previous step's output; a ``required`` field that it lacks is filled
    from the run's input, so that a chain need not pass on what only a later agent needs. Graph: the fields of the
    step's ``input`` if it has one, else the merged outputs of its needs.
    """
    step = basket.step(step_id)
    if step.input is not None:
        _check_size(step.id, step.input, run_input, outputs)
        return {name: _resolve_references(value, run_input, outputs, name) for name, value in step.input.items()}
    if basket.strategy == PARALLEL or not step.needs:
        return dict(run_input)
    step_input: dict[str, Any] = {}
    given_by: dict[str, str] = {}
    for need in step.needs:
        for key, value in outputs[need].items():
            if key in step_input:
                raise InputAmbiguous(f"{given_by[key]} and {need} both give {key!r}: name the one to take in its input")
            step_input[key], given_by[key] = value, need
    if basket.strategy == SEQUENTIAL:
        step_input.update(
            {field: run_input[field] for field in required if field not in step_input and field in run_input}
        )
    return step_input


def _check_size(
    step_id: str,
    step_input: Mapping[str, Any],
    run_input: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raise InputTooLarge if the references make the input too large: many may point at one large value."""
    references = Counter(_references_in(step_input))
    if references.total() <= _UNMEASURED_REFERENCES_MAX:
        return
    size = 0
    for (source, pointer), count in references.items():
        with suppress(LookupError):  # said by the resolution itself
            part = resolve_pointer(run_input if source == RUN_INPUT else outputs[source], pointer)
            size += count * len(json.dumps(part, ensure_ascii=False).encode())
        if size > STEP_INPUT_MAX_BYTES:
            raise InputTooLarge(
                f"the input of {step_id} takes over {STEP_INPUT_MAX_BYTES} bytes: refer to less of {source}"
            )


def _references_in(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for inner in value:
            yield from _references_in(inner)
    elif isinstance(value, Mapping) and is_input_reference(value):
        yield value["from"], value.get("pointer") or ""
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _references_in(inner)


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
        return resolve_pointer(run_input if source == RUN_INPUT else outputs[source], pointer)
    except LookupError:
        raise InputNotFound(f"{name}: there is nothing at {pointer!r} of {source}") from None


def resolve_pointer(value: Any, pointer: str) -> Any:
    """Return the part of ``value`` at a JSON Pointer (RFC 6901); raises LookupError if there is none."""
    for key in parse_pointer(pointer):
        if isinstance(value, list) and _INDEX.fullmatch(key):
            value = value[int(key)]
        elif isinstance(value, Mapping):
            value = value[key]
        else:
            raise LookupError(key)
    return value
