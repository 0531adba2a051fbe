"""JSON Schema validator (2020-12): never fetches a schema, never backtracks in a regex, never echoes a large value."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jsonschema_rs
import orjson

from shared.domain.definitions.marked_fields import MASK as MARKED_VALUE
from shared.domain.definitions.marked_fields import has_marks
from shared.errors import SpecError
from shared.json_pointer import format_pointer

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FAULTS_MAX: Final = 50
ALL_FAULTS_MAX_BYTES: Final = 16 * 1024
"""For a larger value only the first fault is reported: the library finds all faults, each with a copy of the wrong
part, before it returns the first, and blocks all other threads meanwhile. 300,000 empty items took 6 s."""
_BRANCHES: Final = (b'"anyOf"', b'"oneOf"')
MESSAGE_MAX: Final = 200
_VALUE_CHARS_MAX: Final = 60
# The library puts this in place of the value in its messages, so that the value can be truncated and not the reason.
_MASK: Final = "\x01"
_NOT_JSON: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """A fault of a value; ``pointer`` is a JSON Pointer (RFC 6901), ``""`` for the whole value."""

    pointer: str
    message: str


class CompiledSchema:
    """A compiled and checked schema; raises SpecError, which begins with ``where``, if it is not a valid schema."""

    def __init__(self, schema: Mapping[str, Any], source: str) -> None:
        self._schema = schema
        self._hides_values = has_marks(schema)
        self._has_branches = any(word in orjson.dumps(dict(schema)) for word in _BRANCHES)
        if schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
            raise SpecError(f"{source}: $schema must be {DIALECT}, or be left out")
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(schema), retriever=_refuse_fetch, mask=_MASK, pattern_options=jsonschema_rs.RegexOptions()
            )
        except jsonschema_rs.ValidationError as error:
            at = format_pointer(error.instance_path)
            only = "a schema may only refer within itself: " if error.kind.name == "$ref" else ""
            raise SpecError(f"{source}{at and f' at {at}'}: {only}{_format_error(error)}") from error
        except ValueError as error:
            raise SpecError(f"{source}: {_truncate(str(error), MESSAGE_MAX)}") from error

    def find_faults(self, value: Any) -> list[SchemaFault]:
        """Return the faults of ``value`` by the schema, at most 50 (1 for a large value); empty if it is valid.

        A value that is not JSON (other types, lone surrogates, integers beyond 64 bits, over 250 levels) is one fault.
        """
        # A recursive schema with a value of 100,000 levels overflows the library's stack and ends the process;
        # orjson stops at 254 levels.
        try:
            encoded = orjson.dumps(value, option=_NOT_JSON)
        except TypeError as error:
            return [SchemaFault("", _truncate(f"is not JSON: {error}", MESSAGE_MAX))]
        is_large = len(encoded) > ALL_FAULTS_MAX_BYTES
        try:
            return self._find(value, is_large=is_large)
        except ValueError:
            # The library refuses subclasses such as the driver's Int64, although they are valid JSON.
            return self._find(orjson.loads(encoded), is_large=is_large)

    def _find(self, value: Any, *, is_large: bool) -> list[SchemaFault]:
        if self._validator.is_valid(value):
            return []
        if not is_large:
            return [self._fault(error) for error in itertools.islice(self._validator.iter_errors(value), FAULTS_MAX)]
        if self._has_branches:  # the library would collect all faults of all branches to report one
            return [SchemaFault("", "breaks the schema; too large to say where")]
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [self._fault(error)]
        return []

    def _fault(self, error: jsonschema_rs.ValidationError) -> SchemaFault:
        if self._hides_values:
            # A fault of one field may be told with the whole object around it, and so with what is marked.
            return SchemaFault(format_pointer(error.instance_path), _truncate(_hidden_message(error), MESSAGE_MAX))
        message = _format_error(error)
        if error.kind.name == "pattern":  # the schema's ``description`` is easier to read
            description = _description(self._schema, error.schema_path[:-1])
            if description is not None:
                message = _truncate(f"{_value(error)} is not as described: {description}", MESSAGE_MAX)
        return SchemaFault(format_pointer(error.instance_path), message)


def _refuse_fetch(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not fetched")


def _hidden_message(error: jsonschema_rs.ValidationError) -> str:
    """Return the library's message with ``***`` in place of each value of the caller."""
    return str(error.message).replace(_MASK, MARKED_VALUE)


def _format_error(error: jsonschema_rs.ValidationError) -> str:
    message = error.message
    if _MASK in message:
        message = message.replace(_MASK, _value(error), 1)
    return _truncate(message, MESSAGE_MAX)


def _value(error: jsonschema_rs.ValidationError) -> str:
    return _truncate(orjson.dumps(error.instance).decode(), _VALUE_CHARS_MAX)


def _description(schema: Any, path: Iterable[str | int]) -> str | None:
    """Return the ``description`` of the part of ``schema`` at ``path``; None if it has none."""
    try:
        for part in path:
            schema = schema[part]
        description: str = schema["description"]
    except (LookupError, TypeError):
        return None
    return description


def _truncate(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
