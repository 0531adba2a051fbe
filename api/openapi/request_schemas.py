"""The forms of what is sent: marshmallow's schemas, and what of their rules only JSON Schema can write down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from api.actions.cancel import REASON_MAX
from api.http.schema_fields import ITEMS_MAX
from api.openapi.json_schema import STRING, JsonObject, described, ref
from api.submission.schemas import METADATA_MAX_BYTES
from shared.domain.definitions.agent_spec import TIMEOUT_MAX_S
from shared.domain.definitions.basket import GRAPH, PARALLEL, SEQUENTIAL
from shared.domain.definitions.retry_policy import NAMED_RETRY_POLICIES, RETRY_POLICY_LIMITS
from shared.domain.lifecycle.rerun import RetryFrom

_RETRY_SCHEMA: Final[JsonObject] = {
    "anyOf": [
        {"type": "string", "enum": list(NAMED_RETRY_POLICIES)},
        {
            "type": "object",
            "properties": {
                name: {"type": "integer" if name == "attempts" else "number", "minimum": least, "maximum": most}
                for name, (least, most) in RETRY_POLICY_LIMITS.items()
            },
            "additionalProperties": False,
        },
    ],
    "description": "how often a step is tried, and how long it rests between: a policy's name, or a policy",
}
# A basket lists its agents or writes its graph, never both; the strategy goes with the one it is of.
_AGENTS_OR_STEPS: Final[JsonObject] = {
    "oneOf": [
        {
            "required": ["agents"],
            "properties": {"steps": False, "execution_strategy": {"enum": [SEQUENTIAL, PARALLEL]}},
        },
        {"required": ["steps"], "properties": {"agents": False, "execution_strategy": {"const": GRAPH}}},
    ]
}
_ONE_RUN_AFTER: Final[JsonObject] = {
    "not": {
        "required": ["run_after", "run_after_s"],
        "properties": {"run_after": STRING, "run_after_s": {"type": "number"}},
    }
}
_NAME_OR_CONFIG: Final[JsonObject] = {
    "anyOf": [
        {"required": ["basket_name"], "properties": {"basket_name": STRING}},
        {
            "required": ["config"],
            "properties": {"config": ref("BasketConfig"), "basket_name": {"type": "null"}},
        },
    ]
}

# Bodies that handlers read by hand; each may be absent altogether.
HAND_WRITTEN_SCHEMAS: Final[dict[str, JsonObject]] = {
    "CancelRequest": {
        "type": "object",
        "properties": {
            "reason": {"type": ["string", "null"], "maxLength": REASON_MAX, "description": "shown with the execution"}
        },
    },
    "RetryRequest": {
        "type": "object",
        "properties": {
            "from": {
                "type": "string",
                "enum": [str(start) for start in RetryFrom],
                "default": str(RetryFrom.FAILED),
                "description": "failed keeps the finished steps; start runs all of them again",
            }
        },
    },
    "NewConsumer": {
        "type": "object",
        "properties": {
            "since": {
                "type": ["string", "null"],
                "default": "now",
                "description": "where it begins: now, or a next_since as it came",
            }
        },
    },
    "Nothing": {"type": "object", "description": "no key means anything yet"},
}


def build_request_schemas(generated: Mapping[str, JsonObject]) -> dict[str, JsonObject]:
    """Answer the forms of all bodies; ``generated`` are those that apispec made of the schemas."""
    forms = {name: _as_json_schema(form) for name, form in generated.items()}
    step = forms["WrittenStep"]["properties"]
    step["retry"] = _RETRY_SCHEMA
    step["timeout_s"] = {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MAX_S}
    # These are read by one plain loop, whose rules marshmallow does not know.
    forms["PollMany"]["properties"]["items"] |= {"minItems": 1, "maxItems": ITEMS_MAX}
    forms["PolledItem"]["properties"]["rev"] |= {"minimum": 0, "maximum": 2**63 - 1}
    # An item is judged by itself, so that nothing in it refuses the whole.
    forms["RunBatch"]["properties"]["items"] = {
        "type": "array",
        "minItems": 1,
        "maxItems": ITEMS_MAX,
        "items": {"anyOf": [ref("BatchItem"), {"description": "anything else is refused in its place"}]},
    }
    for name in ("BasketConfig", "NewBasket"):
        forms[name] |= _AGENTS_OR_STEPS
    for name in ("RunBasket", "RunAgent", "BatchItem"):
        run_after = forms[name]["properties"]["run_after"]
        run_after |= {"type": ["string", "null"], "format": "date-time"}
        run_after["description"] += "; with its offset, at most nine digits after the second, at most ten years ahead"
        forms[name]["properties"]["metadata"]["description"] += f" ({METADATA_MAX_BYTES} bytes)"
        forms[name] |= _ONE_RUN_AFTER
    # A config beside a name is not looked at, so its form is said where it counts.
    for name in ("RunBasket", "BatchItem"):
        forms[name]["properties"]["config"] = described({}, "a basket for this run only; basket_name wins")
        forms[name] |= _NAME_OR_CONFIG
    return forms | HAND_WRITTEN_SCHEMAS


def _as_json_schema(form: Any) -> Any:
    r"""Answer ``form`` as the API reads it, for others than Python.

    ``\Z``, which only Python knows, is ``$`` elsewhere; and no body is refused for a key that it has beside.
    """
    if isinstance(form, dict):
        told = {key: item for key, item in form.items() if (key, item) != ("additionalProperties", False)}
        return {
            key: _portable_pattern(item) if key == "pattern" else _as_json_schema(item) for key, item in told.items()
        }
    return [_as_json_schema(item) for item in form] if isinstance(form, list) else form


def _portable_pattern(pattern: Any) -> Any:
    return pattern.removesuffix(r"\Z") + "$" if isinstance(pattern, str) and pattern.endswith(r"\Z") else pattern
