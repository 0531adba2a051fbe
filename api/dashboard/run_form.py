"""The form of a run: a field for each property of the input schema of the agents that a basket begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

_FIELD_PREFIX: Final = "field."
_LONG_TEXT: Final = 120


class InvalidField(Exception):
    """A field holds what its type does not allow; the message names it."""


@dataclass(frozen=True, slots=True)
class FormField:
    """One property of the input: ``kind`` is ``text``, ``number``, ``boolean``, ``choice`` or ``json``."""

    name: str
    kind: str
    is_required: bool
    description: str
    choices: Sequence[str] = ()
    value: str = ""
    """What the control shows; of a boolean ``true``, ``false`` or nothing."""

    @property
    def control(self) -> str:
        """The name of its control in the form."""
        return _FIELD_PREFIX + self.name

    @property
    def is_long(self) -> bool:
        """Whether it needs several lines."""
        return self.kind == "json" or len(self.value) > _LONG_TEXT


def fields_of(schemas: Sequence[Mapping[str, Any]], value: Mapping[str, Any]) -> Sequence[FormField]:
    """Return the fields of these input schemas, filled in with ``value``; required ones come first."""
    fields: dict[str, FormField] = {}
    for schema in schemas:
        required = schema.get("required", ())
        for name, part in schema.get("properties", {}).items():
            if name not in fields:
                fields[name] = _field(name, part if isinstance(part, Mapping) else {}, name in required)
    for name in value:  # what the schema does not name, but the sample or an earlier run has
        fields.setdefault(name, FormField(name, "json", is_required=False, description=""))
    for name in fields.keys() & value.keys():
        fields[name] = replace(fields[name], value=_shown(fields[name], value[name]))
    return sorted(fields.values(), key=lambda each: not each.is_required)


def parse_fields(fields: Sequence[FormField], sent: Mapping[str, str]) -> dict[str, Any]:
    """Return the input that was sent with the form; raises InvalidField. An empty one is left out, unless required."""
    value: dict[str, Any] = {}
    for each in fields:
        text = sent.get(each.control, "").replace("\r\n", "\n")
        if text == "" and not (each.is_required and each.kind == "text"):
            continue
        value[each.name] = _parse(each, text)
    return value


def parse_json(text: str) -> dict[str, Any]:
    """Return the object that ``text`` holds as JSON; raises InvalidField."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidField(f"the input is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidField("the input must be a JSON object, such as {}")
    return value


def to_json(value: Any) -> str:
    """Return ``value`` as JSON for people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _field(name: str, schema: Mapping[str, Any], is_required: bool) -> FormField:
    description = str(schema.get("description", ""))
    choices = schema.get("enum", ())
    kinds = _kind_of(schema.get("type"))
    if choices and all(isinstance(choice, str) for choice in choices):
        return FormField(name, "choice", is_required, description, choices)
    if kinds == "boolean":
        return FormField(name, "boolean", is_required, description, ("true", "false"))
    if kinds in ("number", "integer"):
        return FormField(name, "number", is_required, description)
    return FormField(name, "text" if kinds == "string" else "json", is_required, description)


def _kind_of(kinds: Any) -> str:
    """Return the one type of a property besides null; empty if it has several, so that its field takes JSON."""
    several = [each for each in (kinds if isinstance(kinds, list) else [kinds]) if each != "null"]
    return str(several[0]) if len(several) == 1 else ""


def _shown(each: FormField, value: Any) -> str:
    if value is None and each.kind != "json":
        return ""
    if each.kind in {"text", "choice"} and isinstance(value, str):
        return value
    return to_json(value) if each.kind == "json" else orjson.dumps(value).decode()


def _parse(each: FormField, text: str) -> Any:
    if each.kind in {"text", "choice"}:
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        wanted = {"number": "a number", "boolean": "true or false"}.get(each.kind, "JSON")
        raise InvalidField(f"{each.name} must be {wanted}, not {text[:60]!r}") from None
