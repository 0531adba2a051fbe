"""Builders for JSON Schema 2020-12, the dialect of OpenAPI 3.1."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

JsonObject = dict[str, Any]

STRING: Final[JsonObject] = {"type": "string"}
BOOLEAN: Final[JsonObject] = {"type": "boolean"}
POSITIVE: Final[JsonObject] = {"type": "integer", "minimum": 1}
COUNT: Final[JsonObject] = {"type": "integer", "minimum": 0}
MOMENT: Final[JsonObject] = {"type": "string", "format": "date-time"}
TIMESTAMP: Final[JsonObject] = MOMENT | {"pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"}
URI_REFERENCE: Final[JsonObject] = {"type": "string", "format": "uri-reference"}


def object_of(description: str = "", optional: Collection[str] = (), /, **properties: JsonObject) -> JsonObject:
    """Return the schema of an object with exactly these properties; all but the ``optional`` ones are required."""
    return ({"description": description} if description else {}) | {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def array_of(items: JsonObject, **limits: int) -> JsonObject:
    """Return the schema of a list; ``limits`` are ``minItems`` and ``maxItems``."""
    return {"type": "array", "items": items, **limits}


def nullable(schema: JsonObject) -> JsonObject:
    """Return ``schema`` with null allowed too, in the notation of OpenAPI 3.1."""
    if isinstance(schema.get("type"), str) and "enum" not in schema and "const" not in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def enum_of(*values: str) -> JsonObject:
    """Return the schema of a string from a closed list."""
    return {"type": "string", "enum": [str(value) for value in values]}


def constant(value: str | int) -> JsonObject:
    """Return the schema of a value that is always the same: an enum of one, as generators of clients trip on const."""
    return {"type": "string" if isinstance(value, str) else "integer", "enum": [value]}


def matching(pattern: str | re.Pattern[str]) -> JsonObject:
    """Return the schema of a string; a compiled pattern, made for ``fullmatch``, gets JSON Schema's anchors."""
    return {"type": "string", "pattern": pattern if isinstance(pattern, str) else f"^(?:{pattern.pattern})$"}


def ref(component: str, kind: str = "schemas") -> JsonObject:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{kind}/{component}"}


def described(schema: JsonObject, description: str) -> JsonObject:
    """Return ``schema`` with a description; also beside a reference, which OpenAPI 3.1 allows."""
    return schema | {"description": description}
