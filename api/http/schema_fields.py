"""Fields and base classes of the schemas of request bodies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from shared.timestamps import parse_rfc3339

ITEMS_MAX: Final = 500
_FAR: Final = timedelta(days=3_650)
_AN_OBJECT: Final = "must be a JSON object"


class BodySchema(Schema):
    """A body of which unknown keys are ignored; the caller is told of them in ``warnings``."""

    error_messages: dict[str, str] = {"type": _AN_OBJECT}

    class Meta:
        """Marshmallow's options."""

        unknown = EXCLUDE


class ObjectField(fields.Dict):
    """A JSON object."""

    default_error_messages = {"invalid": _AN_OBJECT}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keys=fields.Str(), **kwargs)


class TimestampField(fields.Field[datetime]):
    """A timestamp as RFC 3339 writes it, with its offset."""

    default_error_messages = {
        "invalid": "must be a moment such as 2026-11-21T12:00:00Z, with its offset, at most ten years ahead"
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> datetime:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        try:
            at = parse_rfc3339(value)
        except ValueError:
            raise self.make_error("invalid") from None
        if at - datetime.now(UTC) > _FAR:  # the wall clock will do: this only keeps nonsense out
            raise self.make_error("invalid")
        return at


class StrictNumberField(fields.Float):
    """A JSON number, and no string that looks like one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, *args, **kwargs)


def seconds_field(*, least: float, description: str) -> fields.Float:
    """Return a field of so many seconds, at most ten years."""
    most = _FAR.total_seconds()
    limits = validate.Range(min=least, max=most, error=f"must be {least:g} to {most:.0f} seconds")
    return StrictNumberField(allow_none=True, validate=limits, metadata={"description": description})


class ItemsField(fields.List[Any]):
    """A list of 1 to ``ITEMS_MAX`` items, not validated here: each is checked by itself later."""

    def __init__(self, of: type[Schema], *, described: str) -> None:
        """``described`` says to callers what the list holds."""
        limits = {"minItems": 1, "maxItems": ITEMS_MAX}
        super().__init__(fields.Nested(of), required=True, metadata=limits)
        # marshmallow formats its messages, so braces stand twice.
        text = described.replace("{", "{{").replace("}", "}}")
        self.error_messages |= dict.fromkeys(("required", "null", "invalid"), f"must be a list of {text}")

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        if not 1 <= len(value) <= ITEMS_MAX:
            raise ValidationError(f"must be 1 to {ITEMS_MAX} items")
        return value
