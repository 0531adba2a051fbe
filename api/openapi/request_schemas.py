"""JSON schemas of request bodies: marshmallow's schemas, and the rules that only JSON Schema can express."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from api.actions.cancel import REASON_MAX
from api.feed.changes import NOW
from api.http.schema_fields import ITEMS_MAX
from api.openapi.json_schema import STRING, JsonObject, described, enum_of, nullable, ref
from api.openapi.response_schemas import TIMEOUT_S
from api.submission.schemas import METADATA_MAX_BYTES
from shared.domain.definitions.basket import GRAPH, PARALLEL, SEQUENTIAL
from shared.domain.definitions.retry_policy import NAMED_RETRY_POLICIES, RETRY_POLICY_LIMITS
from shared.domain.lifecycle.rerun import RetryFrom

_RETRY_SCHEMA: Final[JsonObject] = {
    "anyOf": [
        enum_of(*NAMED_RETRY_POLICIES),
        {
            "type": "object",
            "properties": {
                name: {
                    "type": ["integer" if name == "attempts" else "number", "null"],
                    "minimum": least,
                    "maximum": most,
                }
                for name, (least, most) in RETRY_POLICY_LIMITS.items()
            },
            "additionalProperties": False,
        },
        {"type": "null"},
    ],
    "description": "how often a step is tried, and the delay between attempts: a policy's name, or a policy",
}
# A basket has either a list of agents or a graph of steps, never both; the strategy has to fit.
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
        {"required": ["config"], "properties": {"config": ref("BasketConfig"), "basket_name": {"type": "null"}}},
    ]
}


def _optional_key(name: str, schema: JsonObject, description: str) -> JsonObject:
    return {"type": "object", "properties": {name: described(schema, description)}}


# Bodies that handlers read without marshmallow; each may be absent.
_HAND_WRITTEN_SCHEMAS: Final[dict[str, JsonObject]] = {
    "CancelRequest": _optional_key(
        "reason", {"type": ["string", "null"], "maxLength": REASON_MAX}, "shown with the execution"
    ),
    "RetryRequest": _optional_key(
        "from",
        {"type": ["string", "null"], "enum": [*map(str, RetryFrom), None], "default": str(RetryFrom.FAILED)},
        "failed keeps the finished steps; start runs all of them again",
    ),
    "NewConsumer": _optional_key(
        "since",
        {"type": ["string", "null"], "default": NOW},
        "where it starts: now, or a next_since exactly as it was returned",
    ),
    "Nothing": {"type": "object", "description": "no keys are defined yet"},
}


def build_request_schemas(generated: Mapping[str, JsonObject]) -> dict[str, JsonObject]:
    """Return the schemas of all request bodies; ``generated`` are those that apispec made of marshmallow's."""
    schemas = {name: _as_json_schema(form) for name, form in generated.items()}
    step = schemas["WrittenStep"]["properties"]
    step["retry"] = _RETRY_SCHEMA
    step["timeout_s"] = nullable(TIMEOUT_S)
    for name in ("BasketConfig", "NewBasket", "WrittenStep"):
        schemas[name]["additionalProperties"] = False
    # Read by a plain loop, so marshmallow does not have the rule.
    schemas["PolledItem"]["properties"]["rev"] |= {"minimum": 0, "maximum": 2**63 - 1}
    # Each item is checked by itself, so that a fault in one does not refuse the whole batch.
    schemas["RunBatch"]["properties"]["items"] = {
        "type": "array",
        "minItems": 1,
        "maxItems": ITEMS_MAX,
        "items": {"anyOf": [ref("BatchItem"), {"description": "any other item is refused alone, in its place"}]},
    }
    for name in ("BasketConfig", "NewBasket"):
        schemas[name] |= _AGENTS_OR_STEPS
    for name in ("RunBasket", "RunAgent", "BatchItem"):
        run_after = schemas[name]["properties"]["run_after"]
        run_after |= {"type": ["string", "null"], "format": "date-time"}
        run_after["description"] += "; with a UTC offset, at most nine fractional digits, at most ten years ahead"
        schemas[name]["properties"]["metadata"]["description"] += f" ({METADATA_MAX_BYTES} bytes)"
        schemas[name] |= _ONE_RUN_AFTER
    # A config beside a basket name is ignored, so its schema applies only without a name.
    for name in ("RunBasket", "BatchItem"):
        schemas[name]["properties"]["config"] = described(
            {}, "a basket for this run only; ignored if basket_name is given"
        )
        schemas[name] |= _NAME_OR_CONFIG
    return schemas | _HAND_WRITTEN_SCHEMAS


def _as_json_schema(schema: Any) -> Any:
    r"""Return ``schema`` as the API applies it, in portable JSON Schema.

    ``\Z``, which only Python has, becomes ``$``; and additional keys are allowed, because the API ignores them.
    """
    if isinstance(schema, dict):
        kept = {key: item for key, item in schema.items() if (key, item) != ("additionalProperties", False)}
        return {key: _as_json_schema(item) for key, item in kept.items()}
    if isinstance(schema, list):
        return [_as_json_schema(item) for item in schema]
    return re.sub(r"\\Z$", "$", schema) if isinstance(schema, str) else schema
