"""JSON schemas of request bodies: marshmallow's schemas, and the rules that only JSON Schema can express."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from api.actions.cancel import REASON_MAX
from api.auth.schemas import GRACE_MAX
from api.feed.changes import NOW
from api.integrations.schemas import COMMENT_MAX, TEXT_MAX
from api.openapi.json_schema import JsonObject, described, enum_of, matching, nullable, ref
from api.openapi.response_schemas import TIMEOUT_S
from api.openapi.trust_schemas import VOLUME
from api.submission.schemas import METADATA_MAX_BYTES
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from shared.domain.bulk_action import DEAD_LETTER, TEXT_FILTERS, TEXT_MAX_CHARS, TIME_FILTERS, BulkActionKind
from shared.domain.bulk_action import LIMIT_MAX as BULK_LIMIT_MAX
from shared.domain.definitions.basket import GRAPH, PARALLEL, SEQUENTIAL
from shared.domain.definitions.retry_policy import NAMED_RETRY_POLICIES, RETRY_POLICY_LIMITS
from shared.domain.lifecycle.rerun import RetryFrom
from shared.domain.status import ExecutionStatus
from shared.ids import INTEGRATOR_PATTERN

_NULL: Final[JsonObject] = {"type": "null"}
_STATUS: Final = "|".join(ExecutionStatus)
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
        _NULL,
    ],
    "description": "how often a step is tried, and the delay between attempts: a policy's name, or a policy",
}
# The rules between keys are sentences: generators of clients drop the keys of a schema that has them as JSON Schema.
_ONE_RUN_AFTER: Final = "Give run_after or run_after_s, not both."
_NAME_OR_CONFIG: Final = f"Give basket_name or config. {_ONE_RUN_AFTER}"
_AGENTS_OR_STEPS: Final = (
    f"Give agents or steps, not both; the strategy of steps is {GRAPH}, that of agents {SEQUENTIAL} or {PARALLEL}."
)
_RULES: Final[dict[str, str]] = {
    "RunBasket": _NAME_OR_CONFIG,
    "BatchItem": f"One submit of a batch; one that is not valid is refused alone, in its place. {_NAME_OR_CONFIG}",
    "RunAgent": _ONE_RUN_AFTER,
    "BasketConfig": f"A basket. {_AGENTS_OR_STEPS}",
    "NewBasket": f"A basket with a name. {_AGENTS_OR_STEPS}",
}


def _optional_key(name: str, schema: JsonObject, description: str) -> JsonObject:
    return {"type": "object", "properties": {name: described(schema, description)}}


# Bodies that handlers read without marshmallow; each may be absent.
_FILTER_TEXT: Final[JsonObject] = {"type": "string", "minLength": 1, "maxLength": TEXT_MAX_CHARS}
_HAND_WRITTEN_SCHEMAS: Final[dict[str, JsonObject]] = {
    "CancelRequest": _optional_key(
        "reason", {"type": ["string", "null"], "maxLength": REASON_MAX}, "shown with the execution"
    ),
    "RetryRequest": _optional_key(
        "from",
        nullable(enum_of(*RetryFrom)),
        f"{RetryFrom.FAILED}, the default, keeps the finished steps; {RetryFrom.START} runs all of them again",
    ),
    "NewConsumer": _optional_key(
        "since",
        {"type": ["string", "null"]},
        f"where it starts: {NOW}, the default, or a next_since exactly as it was returned",
    ),
    "Rotation": {
        "type": "object",
        "properties": {
            "grace_s": {
                "type": ["number", "null"],
                "minimum": 0,
                "maximum": GRACE_MAX.total_seconds(),
                "description": "how long the old key stays valid, in seconds; by default it ends at once",
            }
        },
        "additionalProperties": False,
    },
    "MoveComment": {
        "type": "object",
        "properties": {
            "comment": described(nullable({"type": "string", "minLength": 1, "maxLength": COMMENT_MAX}), "why")
        },
        "additionalProperties": False,
    },
    "Ticks": {
        "type": "object",
        "description": "items of the checklists by id: true is done, false is open",
        "properties": {name: {"type": "boolean"} for name in CHECKLIST_ITEMS},
        "minProperties": 1,
        "additionalProperties": False,
    },
    "BulkAction": {
        "type": "object",
        "description": "What to do to which executions.",
        "properties": {
            "action": enum_of(*BulkActionKind),
            "filter": {
                "type": "object",
                "description": "Which executions, as in GET /executions; all that are given must match.",
                "properties": {
                    "status": described(
                        _FILTER_TEXT | matching(f"^(?:{_STATUS})(?:,(?:{_STATUS}))*$"),
                        "one or several statuses, with commas between",
                    ),
                    **dict.fromkeys(TEXT_FILTERS, _FILTER_TEXT),
                    **{name: {"type": "string", "format": "date-time"} for name in TIME_FILTERS},
                    DEAD_LETTER: described(enum_of("true"), "only those that are dead letters now"),
                },
                "minProperties": 1,
                "additionalProperties": False,
            },
            "dry_run": described({"type": "boolean"}, "only count them; by default false"),
            "limit": described(
                {"type": "integer", "minimum": 1, "maximum": BULK_LIMIT_MAX}, "act on the oldest so many at most"
            ),
        },
        "required": ["action", "filter"],
        "additionalProperties": False,
    },
    "Nothing": {"type": "object", "description": "no keys are defined yet"},
}


def build_request_schemas(generated: Mapping[str, JsonObject]) -> dict[str, JsonObject]:
    """Return the schemas of all request bodies; ``generated`` are those that apispec made of marshmallow's."""
    schemas = {name: _as_json_schema(form) for name, form in generated.items()}
    step = schemas["WrittenStep"]["properties"]
    step["retry"] = _RETRY_SCHEMA
    step["timeout_s"] = nullable(TIMEOUT_S)
    for name in ("BasketConfig", "NewBasket", "WrittenStep", "NewKey", "NewIntegration", "Reason"):
        schemas[name]["additionalProperties"] = False
    _add_limits_of_keys_and_integrations(schemas["NewKey"]["properties"], schemas["NewIntegration"]["properties"])
    # Read by a plain loop, so marshmallow does not have the rule.
    schemas["PolledItem"]["properties"]["rev"] |= {"minimum": 0, "maximum": 2**63 - 1}
    for name in ("RunBasket", "RunAgent", "BatchItem"):
        run_after = schemas[name]["properties"]["run_after"]
        run_after |= {"type": ["string", "null"], "format": "date-time"}
        run_after["description"] += "; with a UTC offset, at most nine fractional digits, at most ten years ahead"
        schemas[name]["properties"]["metadata"]["description"] += f" ({METADATA_MAX_BYTES} bytes)"
    for name in ("RunBasket", "BatchItem"):
        schemas[name]["properties"]["config"] = described(
            nullable(ref("BasketConfig")), "a basket for this run only; ignored if basket_name is given"
        )
    for name, rule in _RULES.items():
        schemas[name] = {"description": rule} | schemas[name]
    return schemas | _HAND_WRITTEN_SCHEMAS


def _add_limits_of_keys_and_integrations(new_key: JsonObject, new_integration: JsonObject) -> None:
    """Add what marshmallow's own validators, which are functions, do not tell of themselves."""
    for name in ("expires_in_days", "expires_in_s"):
        del new_key[name]["minimum"]
        new_key[name]["exclusiveMinimum"] = 0
    new_integration["volume"] = VOLUME
    new_integration["name"] |= matching(INTEGRATOR_PATTERN)
    for name in ("use_case", "data_flow", "contact"):
        new_integration[name] |= {"minLength": 1, "maxLength": TEXT_MAX, "pattern": r"\S"}
    new_integration["mapping_url"] |= {"format": "uri", "maxLength": TEXT_MAX}


def _as_json_schema(schema: Any) -> Any:
    r"""Return ``schema`` as the API applies it, in portable JSON Schema.

    ``\Z``, which only Python has, becomes ``$``; additional keys are allowed, because the API ignores them;
    and a default becomes a sentence, because openapi-typescript makes a key with a default required.
    """
    if isinstance(schema, dict):
        schema = _with_default_in_words(schema)
        kept = {key: item for key, item in schema.items() if (key, item) != ("additionalProperties", False)}
        if kept.get("additionalProperties") == {}:  # the same, and generators for Go make pointers of {}
            kept["additionalProperties"] = True
        return {key: _as_json_schema(item) for key, item in kept.items()}
    if isinstance(schema, list):
        return [_as_json_schema(item) for item in schema]
    return re.sub(r"\\Z$", "$", schema) if isinstance(schema, str) else schema


def _with_default_in_words(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a key with its default in the description, if it has one other than an empty text."""
    if "default" not in schema or "type" not in schema:
        return schema
    rest = {key: item for key, item in schema.items() if key != "default"}
    if schema["default"] == "":
        return rest
    words = f"by default {str(schema['default']).lower()}"
    return rest | {"description": "; ".join(filter(None, (schema.get("description"), words)))}
