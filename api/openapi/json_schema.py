"""Builders for JSON Schema 2020-12, the dialect of OpenAPI 3.1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

JsonObject = dict[str, Any]

STRING: Final[JsonObject] = {"type": "string"}
BOOLEAN: Final[JsonObject] = {"type": "boolean"}
COUNT: Final[JsonObject] = {"type": "integer", "minimum": 0}
TIMESTAMP: Final[JsonObject] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
}


def object_of(
    properties: Mapping[str, JsonObject], *, optional: Iterable[str] = (), description: str | None = None
) -> JsonObject:
    """Return the schema of an object with exactly these properties; all but the ``optional`` ones are required."""
    optional_names = set(optional)
    schema: JsonObject = {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional_names],
        "additionalProperties": False,
    }
    return schema if description is None else {"description": description} | schema


def array_of(items: JsonObject, **limits: int) -> JsonObject:
    """Return the schema of a list; ``limits`` are ``minItems`` and ``maxItems``."""
    return {"type": "array", "items": items, **limits}


def map_of(values: JsonObject, keys: str) -> JsonObject:
    """Return the schema of an object whose keys match the pattern ``keys`` and whose values match ``values``."""
    return {"type": "object", "additionalProperties": values, "propertyNames": {"pattern": keys}}


def nullable(schema: JsonObject) -> JsonObject:
    """Return ``schema`` with null allowed too, in the notation of OpenAPI 3.1."""
    if isinstance(schema.get("type"), str) and "enum" not in schema and "const" not in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def enum_of(*values: str) -> JsonObject:
    """Return the schema of a string from a closed list."""
    return {"type": "string", "enum": [str(value) for value in values]}


def anchored_pattern(pattern: re.Pattern[str]) -> str:
    """Return ``pattern``, which our code uses with ``fullmatch``, with the anchors that JSON Schema needs."""
    return f"^(?:{pattern.pattern})$"


def ref(component: str, kind: str = "schemas") -> JsonObject:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{kind}/{component}"}


def described(schema: JsonObject, description: str) -> JsonObject:
    """Return ``schema`` with a description; also beside a reference, which OpenAPI 3.1 allows."""
    return schema | {"description": description}
