"""Checks values against JSON Schema 2020-12; never fetches, never backtracks, never echoes a large value."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jsonschema_rs
import orjson

from shared.errors import SpecError

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FAULTS_MAX: Final = 50
ALL_FAULTS_MAX_BYTES: Final = 16 * 1024
"""Of a larger value only the first fault is told: the library finds all of them, each with a copy of what is wrong,
before it hands out one, and no other thread runs meanwhile. 300,000 empty items took it 6 s."""
_BRANCHES: Final = (b'"anyOf"', b'"oneOf"')
MESSAGE_MAX: Final = 200
_VALUE_CHARS_MAX: Final = 60
# Stands for the value in the library's messages, so that the value can be cut and the reason kept.
_MASK: Final = "\x01"
_NOT_JSON: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """What is wrong, and where: a JSON pointer (RFC 6901), ``""`` for the whole value."""

    pointer: str
    message: str


class CompiledSchema:
    """A compiled schema, itself checked; raises SpecError, which begins with ``where``, if it is no schema."""

    def __init__(self, schema: Mapping[str, Any], where: str) -> None:
        self._schema = schema
        self._has_branches = any(word in orjson.dumps(dict(schema)) for word in _BRANCHES)
        if schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
            raise SpecError(f"{where}: $schema must be {DIALECT}, or be left out")
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(schema), retriever=_refuse_fetch, mask=_MASK, pattern_options=jsonschema_rs.RegexOptions()
            )
        except jsonschema_rs.ValidationError as wrong:
            at = format_json_pointer(wrong.instance_path)
            only = "a schema may only refer within itself: " if wrong.kind.name == "$ref" else ""
            raise SpecError(f"{where}{at and f' at {at}'}: {only}{_format_error(wrong)}") from wrong
        except ValueError as wrong:
            raise SpecError(f"{where}: {_truncate(str(wrong), MESSAGE_MAX)}") from wrong

    def find_faults(self, value: Any) -> list[SchemaFault]:
        """Answer what in ``value`` breaks the schema, at most 50 faults (of a large one, 1); empty where right.

        What is no JSON at all (other types, lone surrogates, integers beyond 64 bits, over 250 levels) is one fault.
        """
        # A recursive schema on a value of 100,000 levels overflows the library's stack and ends the process;
        # orjson stops at 254 levels.
        try:
            written = orjson.dumps(value, option=_NOT_JSON)
        except TypeError as wrong:
            return [SchemaFault("", _truncate(f"is not JSON: {wrong}", MESSAGE_MAX))]
        find = self._all if len(written) <= ALL_FAULTS_MAX_BYTES else self._first
        try:
            return find(value)
        except ValueError:
            # The library refuses subclasses, such as the driver's Int64, that are JSON all the same.
            return find(orjson.loads(written))

    def _all(self, value: Any) -> list[SchemaFault]:
        if self._validator.is_valid(value):
            return []
        return [self._fault(error) for error in itertools.islice(self._validator.iter_errors(value), FAULTS_MAX)]

    def _first(self, value: Any) -> list[SchemaFault]:
        if self._validator.is_valid(value):
            return []
        if self._has_branches:  # all faults of all branches would be found to tell one
            return [SchemaFault("", "breaks the schema; too large to say where")]
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as wrong:
            return [self._fault(wrong)]
        return []

    def _fault(self, error: jsonschema_rs.ValidationError) -> SchemaFault:
        return SchemaFault(format_json_pointer(error.instance_path), self._describe_fault(error))

    def _describe_fault(self, error: jsonschema_rs.ValidationError) -> str:
        """What is wrong; where the schema describes what it has a pattern for, in its words: few read a pattern."""
        described = _description(self._schema, error.schema_path[:-1]) if error.kind.name == "pattern" else None
        if described is None:
            return _format_error(error)
        return _truncate(f"{_value(error)} is not as described: {described}", MESSAGE_MAX)


def format_json_pointer(path: Iterable[str | int]) -> str:
    """Answer ``path`` as a JSON pointer: ``/a~1b/0``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _refuse_fetch(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not fetched")


def _format_error(error: jsonschema_rs.ValidationError) -> str:
    message = error.message
    if _MASK in message:
        message = message.replace(_MASK, _value(error), 1)
    return _truncate(message, MESSAGE_MAX)


def _value(error: jsonschema_rs.ValidationError) -> str:
    return _truncate(orjson.dumps(error.instance).decode(), _VALUE_CHARS_MAX)


def _description(schema: Any, path: Iterable[str | int]) -> str | None:
    """Answer how the part of ``schema`` at ``path`` is described; None where it is not."""
    try:
        for part in path:
            schema = schema[part]
        described: str = schema["description"]
    except (LookupError, TypeError):
        return None
    return described


def _truncate(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
