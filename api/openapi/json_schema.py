"""Small words for JSON Schema 2020-12, the dialect of OpenAPI 3.1."""

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
    """Answer the form of an object that has these properties and no others, all but the ``optional`` ones always."""
    left_out = set(optional)
    form: JsonObject = {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": False,
    }
    return form if description is None else {"description": description} | form


def array_of(items: JsonObject, **limits: int) -> JsonObject:
    """Answer the form of a list; ``limits`` are ``minItems`` and ``maxItems``."""
    return {"type": "array", "items": items, **limits}


def map_of(values: JsonObject, keys: str) -> JsonObject:
    """Return the form of an object whose keys match ``keys`` and whose values all have one form."""
    return {"type": "object", "additionalProperties": values, "propertyNames": {"pattern": keys}}


def nullable(form: JsonObject) -> JsonObject:
    """Answer ``form`` with null allowed beside it, as 3.1 writes it."""
    if isinstance(form.get("type"), str) and "enum" not in form and "const" not in form:
        return form | {"type": [form["type"], "null"]}
    return {"anyOf": [form, {"type": "null"}]}


def enum_of(*values: str) -> JsonObject:
    """Answer the form of a string out of a closed list."""
    return {"type": "string", "enum": [str(value) for value in values]}


def anchored_pattern(pattern: re.Pattern[str]) -> str:
    """Answer ``pattern``, which our code matches in full, with the anchors that JSON Schema needs."""
    return f"^(?:{pattern.pattern})$"


def ref(component: str, kind: str = "schemas") -> JsonObject:
    """Answer a reference to a component."""
    return {"$ref": f"#/components/{kind}/{component}"}


def described(form: JsonObject, description: str) -> JsonObject:
    """Answer ``form`` with a description; beside a reference too, as 3.1 allows."""
    return form | {"description": description}
