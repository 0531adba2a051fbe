"""Small words for JSON Schema 2020-12, the dialect of OpenAPI 3.1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

Json = dict[str, Any]

STRING: Final[Json] = {"type": "string"}
BOOLEAN: Final[Json] = {"type": "boolean"}
COUNT: Final[Json] = {"type": "integer", "minimum": 0}
MOMENT: Final[Json] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
}


def exactly(properties: Mapping[str, Json], *, optional: Iterable[str] = (), told: str | None = None) -> Json:
    """Answer the form of an object that has these properties and no others, all but the ``optional`` ones always."""
    left_out = set(optional)
    form: Json = {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": False,
    }
    return form if told is None else {"description": told} | form


def a_list(items: Json, **limits: int) -> Json:
    """Answer the form of a list; ``limits`` are ``minItems`` and ``maxItems``."""
    return {"type": "array", "items": items, **limits}


def a_map(values: Json, keys: str) -> Json:
    """Return the form of an object whose keys match ``keys`` and whose values all have one form."""
    return {"type": "object", "additionalProperties": values, "propertyNames": {"pattern": keys}}


def or_null(form: Json) -> Json:
    """Answer ``form`` with null allowed beside it, as 3.1 writes it."""
    if isinstance(form.get("type"), str) and "enum" not in form and "const" not in form:
        return form | {"type": [form["type"], "null"]}
    return {"anyOf": [form, {"type": "null"}]}


def one_of(*values: str) -> Json:
    """Answer the form of a string out of a closed list."""
    return {"type": "string", "enum": [str(value) for value in values]}


def whole(pattern: re.Pattern[str]) -> str:
    """Answer ``pattern``, which our code matches in full, with the anchors that JSON Schema needs."""
    return f"^(?:{pattern.pattern})$"


def named(component: str, kind: str = "schemas") -> Json:
    """Answer a reference to a component."""
    return {"$ref": f"#/components/{kind}/{component}"}


def told(form: Json, description: str) -> Json:
    """Answer ``form`` with a description; beside a reference too, as 3.1 allows."""
    return form | {"description": description}
