"""marshmallow fields and the base class for the schemas of request bodies."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load, validate, validates_schema

from api.http.body_key_checks import NO_KEY_HINTS, unknown_key_faults
from shared.timestamps import parse_rfc3339

ITEMS_MAX: Final = 500
_FUTURE_MAX: Final = timedelta(days=3_650)
_NOT_AN_OBJECT_MESSAGE: Final = "must be a JSON object"


class BodySchema(Schema):
    """A JSON object of a request; null stands for the absence of any key that may be absent."""

    IS_STRICT: ClassVar[bool] = False
    """Whether unknown keys are refused; if not, misspelt ones are, and the response names others in ``warnings``."""

    KEY_HINTS: ClassVar[Mapping[str, str]] = NO_KEY_HINTS
    """For keys that belong somewhere else, the text of a warning that says where."""

    error_messages: dict[str, str] = {"type": _NOT_AN_OBJECT_MESSAGE}

    class Meta:
        """Marshmallow's options."""

        unknown = EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Let the documented schema allow null wherever a key may be absent."""
        super().on_bind_field(field_name, field_obj)
        field_obj.allow_none = field_obj.allow_none or not field_obj.required

    @pre_load
    def _drop_nulls(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, dict) or None not in data.values():
            return data
        return {key: value for key, value in data.items() if value is not None or self._is_required(key)}

    def _is_required(self, key: str) -> bool:
        return key in self.fields and self.fields[key].required

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _refuse_unknown_keys(self, _: Any, original: Any, **__: Any) -> None:
        if self.IS_STRICT and isinstance(original, dict) and not original.keys() <= self.fields.keys():
            raise ValidationError(unknown_key_faults(original, self.fields))


class ObjectField(fields.Dict):
    """A JSON object."""

    default_error_messages = {"invalid": _NOT_AN_OBJECT_MESSAGE}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keys=fields.Str(), **kwargs)


class TimestampField(fields.Field[datetime]):
    """A timestamp in RFC 3339 format, with its offset."""

    default_error_messages = {
        "invalid": "must be a moment such as 2026-11-21T12:00:00Z, with its offset, at most ten years ahead"
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> datetime:
        with suppress(ValueError):
            at = parse_rfc3339(value) if isinstance(value, str) else None
            if at is not None and at - datetime.now(UTC) <= _FUTURE_MAX:  # by the local clock: it only refuses nonsense
                return at
        raise self.make_error("invalid")


class StrictNumberField(fields.Float):
    """A JSON number; a string that looks like one is refused."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, *args, **kwargs)


class StrictBooleanField(fields.Bool):
    """JSON's true or false; a number or a string that stands for one is refused."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):  # marshmallow compares by ==, and 1 == True
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, *args, **kwargs)


def seconds_field(*, least: float, description: str) -> fields.Float:
    """Return a field for a number of seconds, from ``least`` to ten years."""
    most = _FUTURE_MAX.total_seconds()
    seconds_range = validate.Range(min=least, max=most, error=f"must be {least:g} to {most:.0f} seconds")
    return StrictNumberField(allow_none=True, validate=seconds_range, metadata={"description": description})


class ItemsField(fields.List[Any]):
    """A list of 1 to ``ITEMS_MAX`` items; the items are not validated here but one by one later."""

    def __init__(self, of: type[Schema], *, description: str) -> None:
        """Create the field; ``description`` tells callers in error messages what the list holds."""
        limits = {"minItems": 1, "maxItems": ITEMS_MAX}
        super().__init__(fields.Nested(of), required=True, metadata=limits)
        # marshmallow formats its messages, so braces are doubled.
        text = description.replace("{", "{{").replace("}", "}}")
        self.error_messages |= dict.fromkeys(("required", "null", "invalid"), f"must be a list of {text}")

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        if not 1 <= len(value) <= ITEMS_MAX:
            raise ValidationError(f"must be 1 to {ITEMS_MAX} items")
        return value
