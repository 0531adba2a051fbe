"""References in a step's input: ``{"from": "<a step or input>", "pointer": "/a/0"}``, at any depth.

An object that misses this form by a hair is a fault of the basket: it would reach the agent as a literal.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from shared.suggestions import closest_matches

RUN_INPUT: Final = "input"
_KEYS: Final = ("from", "pointer")
_SHOWN_CHARS: Final = 64
_BAD_ESCAPE: Final = re.compile(r"~(?![01])")

_Path = tuple[str | int, ...]


def is_input_reference(value: Any) -> bool:
    """Return whether a value in a step's ``input`` refers to other data and is not a literal."""
    if not isinstance(value, Mapping) or not {"from"} <= set(value) <= set(_KEYS):
        return False
    return isinstance(value["from"], str) and isinstance(value.get("pointer", ""), str | None)


def find_reference_faults(
    step_id: str, step_input: Mapping[str, Any], needs: Collection[str], step_ids: Collection[str]
) -> Iterator[tuple[_Path, str]]:
    """Yield path and text of each fault in the references of a step's ``input``, at any depth.

    ``needs`` are the steps that it may refer to, ``step_ids`` all steps.
    """
    sources = {*step_ids, RUN_INPUT}
    source = step_input.get("from")
    if set(step_input) <= set(_KEYS) and isinstance(source, str) and source in sources:
        yield (), f"the input of {step_id} is an object of fields; an input reference is the value of one of them"
        return
    for path, value in _find_meant_references(step_input, (), sources):
        yield from ((path + place, text) for place, text in _find_faults(step_id, value, needs, step_ids))


def _find_meant_references(value: Any, path: _Path, sources: Collection[str]) -> Iterator[tuple[_Path, Any]]:
    if isinstance(value, Mapping):
        if path and _is_meant_as_reference(value, sources):
            yield path, value
        else:
            for name, inner in value.items():
                yield from _find_meant_references(inner, (*path, name), sources)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from _find_meant_references(inner, (*path, index), sources)


def _is_meant_as_reference(value: Mapping[str, Any], sources: Collection[str]) -> bool:
    """Return whether an object is a reference or a misspelt one; ``{"from": "May", "to": "June"}`` is neither."""
    if "from" in value:
        source = value["from"]
        return "pointer" in value or (isinstance(source, str) and (len(value) == 1 or source in sources))
    names_source = any(isinstance(inner, str) and inner in sources for inner in value.values())
    folded = {name.lower() for name in value}
    if "pointer" in value:
        pointer = value["pointer"]
        return isinstance(pointer, str) and (names_source or (len(value) == 1 and pointer.startswith("/")))
    return "from" in folded and (names_source or "pointer" in folded)


def _find_faults(
    step_id: str, value: Mapping[str, Any], needs: Collection[str], step_ids: Collection[str]
) -> Iterator[tuple[_Path, str]]:
    for name in value:
        if name not in _KEYS:
            shown = name[:_SHOWN_CHARS]
            yield (name,), f"an input reference has no key {shown!r}: only from and pointer, and there are no defaults"
    if "from" not in value:
        yield (), f"an input reference of {step_id} has no from: name a step that it needs, or {RUN_INPUT}"
    else:
        yield from _find_source_faults(step_id, value["from"], needs, step_ids)
    pointer = value.get("pointer")
    if pointer is None:
        return
    if not isinstance(pointer, str):
        yield ("pointer",), "a pointer is text, such as /a/0"
    elif pointer and not pointer.startswith("/"):
        yield ("pointer",), f"a pointer begins with a slash: write {f'/{pointer[:_SHOWN_CHARS]}'!r}"
    elif _BAD_ESCAPE.search(pointer):
        yield ("pointer",), "in a pointer ~ is written ~0, and / within a name ~1"


def _find_source_faults(
    step_id: str, source: Any, needs: Collection[str], step_ids: Collection[str]
) -> Iterator[tuple[_Path, str]]:
    if not isinstance(source, str):
        yield ("from",), f"from is the name of a step that {step_id} needs, or {RUN_INPUT}"
    elif source not in {*needs, RUN_INPUT}:
        text = f"{step_id} takes its input from {source[:_SHOWN_CHARS]!r}, which it does not need"
        if source in step_ids:
            yield ("from",), f"{text}: add it to needs"
        else:
            yield ("from",), f"{text}, and which is no step{did_you_mean(source, [*step_ids, RUN_INPUT])}"


def did_you_mean(name: str, candidates: Collection[str]) -> str:
    """Return ``; did you mean ...?`` with the candidate that resembles ``name``; empty if none does."""
    nearest = closest_matches(name[:_SHOWN_CHARS], candidates)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
