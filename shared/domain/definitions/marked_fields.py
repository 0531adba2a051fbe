"""Marked fields: the places of a JSON value that its schema marks ``writeOnly`` or ``x-secret``, and their masking.

A value in a marked place is stored sealed and shown as ``"***"``. Every branch of a schema counts, whether it applies
to the value or not: to hide too much is a nuisance, to hide too little is a leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from shared.json_pointer import format_pointer, parse_pointer

MASK: Final = "***"
MARKS: Final = ("writeOnly", "x-secret")
HIDDEN_MIN_CHARS: Final = 8
"""Strings in marked places of at least this length are also hidden wherever else they appear."""

_SAME_PLACE: Final = ("allOf", "anyOf", "oneOf")
_SAME_PLACE_ONE: Final = ("if", "then", "else", "not", "$ref", "$dynamicRef")

Path = tuple[str | int, ...]


def has_marks(schema: object) -> bool:
    """Return whether any part of ``schema`` is marked."""
    if isinstance(schema, Mapping):
        return any(schema.get(mark) is True for mark in MARKS) or any(map(has_marks, schema.values()))
    return isinstance(schema, Sequence) and not isinstance(schema, str) and any(map(has_marks, schema))


def marked_paths(schema: Mapping[str, Any], value: Any) -> set[Path]:
    """Return the places of ``value`` that ``schema`` marks, none within another; a marked root is each field."""
    found: set[Path] = set()
    seen: set[tuple[int, Path]] = set()
    pending: list[tuple[Any, Any, Path]] = [(schema, value, ())]
    while pending:
        part, here, path = pending.pop()
        if not isinstance(part, Mapping) or (id(part), path) in seen:
            continue
        seen.add((id(part), path))
        if any(part.get(mark) is True for mark in MARKS):
            found.add(path)
            continue
        pending += [(each, here, path) for each in _schemas_of_same_place(schema, part)]
        pending += [(each, child, (*path, key)) for each, child, key in _schemas_of_children(part, here)]
    if () in found:
        return {(key,) for key in value} if isinstance(value, Mapping) else found
    return set(without_nested(found))


def _schemas_of_same_place(root: Mapping[str, Any], part: Mapping[str, Any]) -> Iterator[Any]:
    for name in _SAME_PLACE:
        yield from part.get(name, ())
    for name in _SAME_PLACE_ONE:
        inner = part.get(name)
        yield _resolve(root, inner) if isinstance(inner, str) else inner
    dependent = part.get("dependentSchemas")
    yield from dependent.values() if isinstance(dependent, Mapping) else ()


def _schemas_of_children(part: Mapping[str, Any], here: Any) -> Iterator[tuple[Any, Any, str | int]]:
    if isinstance(here, Mapping):
        for key, child in here.items():
            for inner in _schemas_of_property(part, key):
                yield inner, child, key
    elif isinstance(here, list):
        prefix = part.get("prefixItems", ())
        for index, child in enumerate(here):
            yield prefix[index] if index < len(prefix) else part.get("items"), child, index
            for name in ("contains", "unevaluatedItems"):
                yield part.get(name), child, index


def _schemas_of_property(part: Mapping[str, Any], key: str) -> Iterator[Any]:
    properties = part.get("properties", {})
    if key in properties:
        yield properties[key]
    else:
        yield from (part.get(name) for name in ("additionalProperties", "unevaluatedProperties"))
    # As if each pattern matched: an author's pattern may take for ever on a caller's key.
    yield from part.get("patternProperties", {}).values()


def _resolve(root: Mapping[str, Any], reference: str) -> Any:
    """Return the part of the schema that a reference within it names; None if it is not found by a pointer."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return _find_anchor(root, reference.removeprefix("#"))
    part: Any = root
    for token in parse_pointer(reference.removeprefix("#")):
        try:
            part = part[int(token)] if isinstance(part, list) else part[token]
        except (LookupError, TypeError, ValueError):
            return None
    return part


def _find_anchor(part: Any, anchor: str) -> Any:
    if isinstance(part, Mapping):
        if anchor in (part.get("$anchor"), part.get("$dynamicAnchor"), part.get("$id")):
            return part
        return next((found for each in part.values() if (found := _find_anchor(each, anchor)) is not None), None)
    if isinstance(part, list):
        return next((found for each in part if (found := _find_anchor(each, anchor)) is not None), None)
    return None


def mask(value: Any, paths: Iterable[Path]) -> tuple[Any, dict[str, Any]]:
    """Return ``value`` with :data:`MASK` in the given places, and what stood there by JSON Pointer.

    ``value`` itself is not changed.
    """
    outermost = without_nested(paths)
    removed = {format_pointer(path): _at(value, path) for path in outermost}
    return _replaced(value, dict.fromkeys(outermost, MASK)), removed


def unmask(masked: Any, removed: Mapping[str, Any]) -> Any:
    """Return the value that :func:`mask` has taken apart."""
    return _replaced(masked, {tuple(parse_pointer(pointer)): part for pointer, part in removed.items()})


def without_nested(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that are within no other one, in a fixed order."""
    found = set(paths)
    return sorted((path for path in found if not any(path[:end] in found for end in range(len(path)))), key=str)


def _replaced(value: Any, parts: Mapping[Path, Any]) -> Any:
    """Return ``value`` with other parts at some paths; each object on the way is copied once."""
    if () in parts:
        return parts[()]
    by_key: dict[str | int, dict[Path, Any]] = {}
    for path, part in parts.items():
        by_key.setdefault(path[0], {})[path[1:]] = part
    copied: Any = [*value] if isinstance(value, list) else {**value}
    for key, within in by_key.items():
        place = int(key) if isinstance(value, list) else key
        copied[place] = _replaced(value[place], within)
    return copied


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def texts_to_hide(parts: Mapping[str, Any], source: str) -> dict[str, str]:
    """Return the strings of marked parts (by JSON Pointer) that must be hidden elsewhere, by a name for each."""
    found: dict[str, str] = {}
    for pointer, part in parts.items():
        name = ".".join((source, *parse_pointer(pointer)))
        for text in _strings_in(part):
            if len(text) >= HIDDEN_MIN_CHARS and text not in found.values():
                found[name if name not in found else f"{name}#{len(found)}"] = text
    return found


def _strings_in(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            pending += [*each, *each.values()]
        elif isinstance(each, list):
            pending += each


def paths_with_texts(value: Any, texts: Iterable[str]) -> set[Path]:
    """Return the places of ``value`` whose string has one of ``texts`` in it; if a key has it, that of the object."""
    texts = tuple(texts)
    found: set[Path] = set()
    pending: list[tuple[Any, Path]] = [(value, ())]
    while pending:
        each, path = pending.pop()
        if isinstance(each, str):
            if any(text in each for text in texts):
                found.add(path)
        elif isinstance(each, Mapping):
            if path and any(text in key for key in each for text in texts):
                found.add(path)
            else:
                pending += [(child, (*path, key)) for key, child in each.items()]
        elif isinstance(each, list):
            pending += [(child, (*path, index)) for index, child in enumerate(each)]
    return found
