"""The bodies that define baskets, as marshmallow schemas: for validation, and for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from marshmallow import fields, validate

from api.http.schema_fields import BodySchema, ObjectField, StrictNumberField
from shared.domain.definitions.agent_spec import TIMEOUT_MAX_S
from shared.domain.definitions.basket import GRAPH, PARALLEL, SEQUENTIAL, STEP_ID_MAX, STEPS_MAX
from shared.ids import AGENT_NAME_PATTERN, BASKET_NAME_PATTERN

DEFINITION_MAX_BYTES: Final = 64 * 1024
_STEP_ID_MESSAGE: Final = "must begin with a lower-case letter, then up to 62 of a-z 0-9 _ -"
_NAME_RULE: Final = validate.Regexp(
    rf"^(?:{BASKET_NAME_PATTERN.pattern})\Z",
    error="must be 1 to 100 letters, digits, spaces or any of _ . + -, and begin with a letter or digit",
)


class WrittenStepSchema(BodySchema):
    """One step of an explicit graph."""

    IS_STRICT = True

    id = fields.Str(validate=validate.Regexp(rf"^(?:{AGENT_NAME_PATTERN.pattern})\Z", error=_STEP_ID_MESSAGE))
    agent = fields.Str(required=True, validate=validate.Length(max=63))
    needs = fields.List(fields.Str(validate=validate.Length(max=STEP_ID_MAX)), validate=validate.Length(max=STEPS_MAX))
    input = ObjectField(metadata={"description": "literals, or {from, pointer}"})
    retry = fields.Raw(metadata={"description": "default, critical, none, or a policy"})
    timeout_s = StrictNumberField(validate=validate.Range(min=0, min_inclusive=False, max=TIMEOUT_MAX_S))


class BasketConfigSchema(BodySchema):
    """A basket as it is written: its agents in order, or a graph of steps."""

    IS_STRICT = True

    name = fields.Str(validate=_NAME_RULE)
    description = fields.Str(load_default="", validate=validate.Length(max=2_000))
    agents = fields.List(
        fields.Str(validate=validate.Length(max=63)),
        validate=validate.Length(min=1, max=STEPS_MAX, error="must name 1 to 200 agents"),
        metadata={"description": "the agents' names, in the order in which they run"},
    )
    steps = fields.List(
        fields.Nested(WrittenStepSchema),
        validate=validate.Length(min=1, max=STEPS_MAX, error="must be 1 to 200 steps"),
        metadata={"description": "an explicit graph, instead of agents"},
    )
    execution_strategy = fields.Str(validate=validate.OneOf([SEQUENTIAL, PARALLEL, GRAPH]))


class NewBasketSchema(BasketConfigSchema):
    """The body of POST /create-basket."""

    name = fields.Str(
        required=True,
        validate=_NAME_RULE,
        error_messages={"required": "name is required", "null": "name is required"},
    )
