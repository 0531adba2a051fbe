"""What goes into the API, as marshmallow schemas: for the validation of bodies, and for the contract's text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Final

from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    missing,
    pre_load,
    validate,
    validates_schema,
)

from api.http.timestamps import read_moment
from shared.domain.definitions.basket import GRAPH, PARALLEL, SEQUENTIAL, STEP_ID_MAX, STEPS_MAX
from shared.ids import AGENT_NAME, BASKET_NAME

ITEMS_MAX: Final = 500
METADATA_MAX_BYTES: Final = 16 * 1024
DEFINITION_MAX_BYTES: Final = 64 * 1024
TAGS_MAX: Final = 20
_FAR: Final = timedelta(days=3_650)
_AN_OBJECT: Final = "must be a JSON object"
_A_STEP: Final = "must begin with a lower-case letter, then up to 62 of a-z 0-9 _ -"

_A_NAME: Final = validate.Regexp(
    rf"^(?:{BASKET_NAME.pattern})\Z",
    error="must be 1 to 100 letters, digits, spaces or any of _ . + -, and begin with a letter or digit",
)


class _Body(Schema):
    """A body of which unknown keys are ignored; the caller is told of them in ``warnings``."""

    error_messages: dict[str, str] = {"type": _AN_OBJECT}

    class Meta:
        unknown = EXCLUDE


class Object(fields.Dict):
    """A JSON object."""

    default_error_messages = {"invalid": _AN_OBJECT}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keys=fields.Str(), **kwargs)


class Moment(fields.Field[datetime]):
    """A moment as RFC 3339 writes it, with its offset."""

    default_error_messages = {
        "invalid": "must be a moment such as 2026-11-21T12:00:00Z, with its offset, at most ten years ahead"
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> datetime:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        try:
            at = read_moment(value)
        except ValueError:
            raise self.make_error("invalid") from None
        if at - datetime.now(UTC) > _FAR:  # the wall clock will do: this only keeps nonsense out
            raise self.make_error("invalid")
        return at


def _seconds(*, least: float, told: str) -> fields.Float:
    most = _FAR.total_seconds()
    limits = validate.Range(min=least, max=most, error=f"must be {least:g} to {most:.0f} seconds")
    return StrictNumber(allow_none=True, validate=limits, metadata={"description": told})


class StrictNumber(fields.Float):
    """A JSON number, and no string that looks like one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, *args, **kwargs)


class WrittenStep(_Body):
    """One step of an explicit graph."""

    id = fields.Str(validate=validate.Regexp(rf"^(?:{AGENT_NAME.pattern})\Z", error=_A_STEP))
    agent = fields.Str(required=True, validate=validate.Length(max=63))
    needs = fields.List(fields.Str(validate=validate.Length(max=STEP_ID_MAX)), validate=validate.Length(max=STEPS_MAX))
    input = Object(metadata={"description": "literals, or {from, pointer}"})
    retry = fields.Raw(metadata={"description": "default, critical, none, or a policy"})
    timeout_s = StrictNumber(validate=validate.Range(min=0, min_inclusive=False, max=86_400))


class BasketConfig(_Body):
    """A basket as it is written: its agents in order."""

    name = fields.Str(validate=_A_NAME)
    description = fields.Str(load_default="", validate=validate.Length(max=2_000))
    agents = fields.List(
        fields.Str(validate=validate.Length(max=63)),
        validate=validate.Length(min=1, max=STEPS_MAX, error="must name 1 to 200 agents"),
        metadata={"description": "the agents' names, in the order in which they run"},
    )
    steps = fields.List(
        fields.Nested(WrittenStep),
        validate=validate.Length(min=1, max=STEPS_MAX, error="must be 1 to 200 steps"),
        metadata={"description": "an explicit graph, in place of agents"},
    )
    execution_strategy = fields.Str(validate=validate.OneOf([SEQUENTIAL, PARALLEL, GRAPH]))


class NewBasket(BasketConfig):
    """The body of POST /create-basket."""

    name = fields.Str(
        required=True,
        validate=_A_NAME,
        error_messages={"required": "name is required", "null": "name is required"},
    )


class _Run(_Body):
    """What every submit may say."""

    USUAL: ClassVar[Mapping[str, type]]
    """The two keys that most bodies are made of, of which nothing can be wrong but their types."""

    tags = fields.List(
        fields.Str(validate=validate.Length(min=1, max=64)),
        load_default=list,
        validate=validate.Length(max=TAGS_MAX, error=f"must be at most {TAGS_MAX} tags"),
        error_messages={"invalid": "must be a list of strings"},
        metadata={"description": "at most 20 words to find the run by"},
    )
    metadata = Object(load_default=dict, metadata={"description": "at most 16 KiB of JSON"})
    run_after = Moment(allow_none=True, metadata={"description": "not before; one in the past is now"})
    run_after_s = _seconds(least=0, told="the same, in seconds from now")
    start_deadline_s = _seconds(least=0.001, told="begun within so many seconds of run_after, or failed")
    deadline_s = _seconds(least=0.001, told="done within so many seconds of run_after, or failed")

    def load(self, data: Any, **options: Any) -> Any:
        """Answer ``data`` as it is checked, with the defaults; the usual body needs no look at each field."""
        if type(data) is not dict or {key: type(value) for key, value in data.items()} != self.USUAL:
            return super().load(data, **options)
        defaults = {name: field.load_default for name, field in self.load_fields.items()}
        told = {name: default() if callable(default) else default for name, default in defaults.items()}
        return {name: value for name, value in told.items() if value is not missing} | data

    @validates_schema
    def _check_moments(self, body: dict[str, Any], **_: Any) -> None:
        if body.get("run_after") is not None and body.get("run_after_s") is not None:
            raise ValidationError("give run_after or run_after_s, not both", "run_after_s")


class RunBasket(_Run):
    """The body of POST /run-basket: a basket's name, or a basket written inline."""

    USUAL = MappingProxyType({"basket_name": str, "input_data": dict})

    basket_name = fields.Str(allow_none=True, metadata={"description": "the name of a basket; wins over config"})
    config = fields.Nested(BasketConfig, allow_none=True, metadata={"description": "a basket for this run only"})
    input_data = Object(load_default=dict, metadata={"description": "absent or {}: the first agent's sample_input"})

    @pre_load
    def _let_the_name_win(self, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Leave out a config that nobody will look at: its faults are none."""
        if body.get("basket_name") is None:
            return body
        return {key: value for key, value in body.items() if key != "config"}


class RunAgent(_Run):
    """The body of POST /run-agent."""

    USUAL = MappingProxyType({"agent_name": str, "input_data": dict})

    agent_name = fields.Str(required=True, error_messages={"required": "agent_name is required"})
    input_data = Object(
        required=True,
        # marshmallow formats its messages, so braces stand twice.
        error_messages={"required": "input_data is required ({{}} means the agent's sample_input)"},
    )
    stateful = fields.Bool(load_default=False, truthy={True}, falsy={False})


class Items(fields.List[Any]):
    """A list of so many items, taken as they came: each is judged by itself later."""

    def __init__(self, of: type[Schema], *, told: str) -> None:
        """``told`` says to callers what a list it is."""
        limits = {"minItems": 1, "maxItems": ITEMS_MAX}
        super().__init__(fields.Nested(of), required=True, metadata=limits)
        # marshmallow formats its messages, so braces stand twice.
        told = told.replace("{", "{{").replace("}", "}}")
        self.error_messages |= dict.fromkeys(("required", "null", "invalid"), f"must be a list of {told}")

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        if not 1 <= len(value) <= ITEMS_MAX:
            raise ValidationError(f"must be 1 to {ITEMS_MAX} items")
        return value


class Ack(_Body):
    """The body of POST /consumers/{name}/ack."""

    cursor = fields.Str(required=True, error_messages={"required": "is required: the next_since of a page"})


# As the bodies are read anew for each request and the schemas are not, their keys are listed once.
RUN_BASKET_KEYS: Final = tuple(RunBasket().fields)
RUN_AGENT_KEYS: Final = tuple(RunAgent().fields)
NEW_BASKET_KEYS: Final = tuple(NewBasket().fields)
CONFIG_KEYS: Final = tuple(BasketConfig().fields)
STEP_KEYS: Final = tuple(WrittenStep().fields)
