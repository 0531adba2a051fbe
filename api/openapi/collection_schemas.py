"""JSON schemas of responses about many things: batches, lists, the feed and its consumers, the catalogue, health."""

from __future__ import annotations

from typing import Final

from api.feed.changes import FEED_POLL_AFTER_MAX_MS
from api.http.query_params import LIMIT_MAX
from api.http.schema_fields import ITEMS_MAX
from api.openapi.json_schema import (
    BOOLEAN,
    COUNT,
    POSITIVE,
    STRING,
    TIMESTAMP,
    JsonObject,
    array_of,
    constant,
    described,
    enum_of,
    matching,
    nullable,
    object_of,
    ref,
)
from api.openapi.response_schemas import (
    ACCEPTED_PROPERTIES,
    AGENT,
    BASKET,
    EXECUTION_ID,
    EXECUTION_PROPERTIES,
    OBJECT,
    OPTIONAL_FIELDS,
    POLL_AFTER_MS,
    PROBLEM_PROPERTIES,
    STATUS,
    STRATEGY,
    TIMEOUT_S,
    WARNINGS,
)
from shared.domain.dead_letter import DeadLetterKind
from shared.domain.definitions.agent_setting import SETTING_NAME_PATTERN
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.definitions.basket import STEPS_MAX
from shared.domain.definitions.retry_policy import NAMED_RETRY_POLICIES
from shared.ids import CONSUMER_NAME_PATTERN, DEAD_LETTER_ID_PATTERN

_CHANGE_FIELDS: Final = ("execution_id", "status", "done", "rev", "basket_name", "tags", "reference")
_SUMMARY_FIELDS: Final = (
    "execution_id", "basket_name", "status", "done", "rev", "progress", "current_step", "error", "tags", "retry_of",
    "created_at", "queued_at", "started_at", "finished_at", "waiting_for", *OPTIONAL_FIELDS,
)  # fmt: skip
_TRUE: Final[JsonObject] = {"type": "boolean", "enum": [True]}
_SINGLE_STATUS: Final = "the status that the single call would have returned"
_OWNER: Final = described(STRING, "the integrator that it belongs to; only an admin sees it")
_CURSOR: Final[JsonObject] = {"type": "string", "minLength": 1}
_CONSUMER: Final[dict[str, JsonObject]] = {
    "consumer": matching(CONSUMER_NAME_PATTERN),
    "cursor": described(_CURSOR, "all changes before it are acknowledged"),
    "created_at": TIMESTAMP,
    "acked_at": described(nullable(TIMESTAMP), "when the cursor last moved; null if it never has"),
}
_END_OF_CHANGES: Final[dict[str, JsonObject]] = {
    "next_since": described(_CURSOR, "pass it back as since to get the changes that follow"),
    "caught_up": described(BOOLEAN, "true if there are no further changes at present, as far as can be known"),
    "poll_after_ms": described(
        POLL_AFTER_MS | {"maximum": FEED_POLL_AFTER_MAX_MS}, "when to poll again, in milliseconds"
    ),
}
_AGENT_PROPERTIES: Final[dict[str, JsonObject]] = {
    "name": AGENT,
    "version": STRING,
    "description": STRING,
    "domains": array_of(STRING, minItems=1),
    "entry": STRING,
    "capabilities": object_of(chainable=BOOLEAN, memory_access=BOOLEAN, idempotent=BOOLEAN),
    "input_schema": described(OBJECT, "JSON Schema 2020-12"),
    "output_schema": described(OBJECT, "JSON Schema 2020-12"),
    "sample_input": OBJECT,
    "sample_output": OBJECT,
    "timeout_s": TIMEOUT_S,
    "retry": {"anyOf": [enum_of(*NAMED_RETRY_POLICIES), OBJECT]},
    "queue": enum_of(*QUEUE_NAMES),
    "settings": described(
        array_of(object_of(name=matching(SETTING_NAME_PATTERN), required=BOOLEAN, description=STRING)),
        "the environment variables that the agent reads at a worker; their values are never shown",
    ),
    "unlisted_without_settings": described(BOOLEAN, "whether the agent is hidden while no worker has its settings"),
}
_DEAD_LETTER: Final[dict[str, JsonObject]] = {
    "integrator": _OWNER,
    "id": matching(DEAD_LETTER_ID_PATTERN),
    "kind": enum_of(*DeadLetterKind),
    "execution_id": nullable(EXECUTION_ID),
    "basket_name": nullable(BASKET),
    "error": nullable(ref("RunError")),
    "finished_at": TIMESTAMP,
    "retried_as": array_of(EXECUTION_ID),
    "times": described(POSITIVE, "only of a message: how often it was received"),
}
_DURATION_S: Final = nullable({"type": "number", "minimum": 0})
_AGENT_STATE: Final[dict[str, JsonObject]] = {
    "availability": object_of(
        "Whether the agent can run now; while it is unavailable, submits that need it are 503.",
        ("reason",),
        status=enum_of("available", "unavailable"),
        reason=described(STRING, "why it is unavailable"),
    ),
    "durations": object_of(
        "How long its recent attempts took.",
        p50_s=described(_DURATION_S, "the 50th percentile in seconds; null if there is none"),
        p95_s=described(_DURATION_S, "the 95th percentile in seconds; null if there is none"),
        count=described(nullable(COUNT), "of so many attempts; null if they cannot be read now"),
    ),
}

COLLECTION_SCHEMAS: Final[dict[str, JsonObject]] = {
    "BatchAccepted": object_of(
        "",
        ("warnings",),
        items=described(
            array_of({"anyOf": [ref("BatchItemAccepted"), ref("BatchItemRefused")]}, minItems=1, maxItems=ITEMS_MAX),
            "one outcome per item, in the order of the request",
        ),
        accepted=COUNT,
        rejected=COUNT,
        warnings=WARNINGS,
    ),
    "BatchItemAccepted": object_of(
        "The response to a submit; the execution's own status is execution_status.",
        ("retry_of", "poll_after_ms", "warnings", "idempotency_replayed"),
        **ACCEPTED_PROPERTIES | {"status": described(constant(202), _SINGLE_STATUS)},
        execution_status=STATUS,
        idempotency_replayed=described(_TRUE, "an earlier request with this key created the execution"),
    ),
    "BatchItemRefused": object_of(
        "The problem that the single call would have returned.",
        ("warnings", "used_by", "requeued_as"),
        **PROBLEM_PROPERTIES
        | {"status": described({"type": "integer", "enum": [400, 404, 422, 500, 503]}, _SINGLE_STATUS)},
    ),
    "Standing": object_of(
        "Status view of an execution: what its poll shows, without the fields that can be large.",
        OPTIONAL_FIELDS,
        **{name: EXECUTION_PROPERTIES[name] for name in _SUMMARY_FIELDS},
    ),
    "ExecutionPage": object_of(
        executions=array_of(ref("Standing"), maxItems=LIMIT_MAX),
        next_cursor=described(nullable(STRING), "pass it back as cursor with the same filters; null on the last page"),
    ),
    "ExecutionPagePart": object_of(
        "A page of executions whose fields the query selects.",
        executions=array_of(ref("ExecutionPart"), maxItems=LIMIT_MAX),
        next_cursor=described(nullable(STRING), "pass it back as cursor with the same filters; null on the last page"),
    ),
    "ManyPolled": object_of(
        "",
        ("left_out", "warnings"),
        changed=described(
            array_of({"anyOf": [ref("Standing"), ref("Execution"), ref("ExecutionPart")]}, maxItems=ITEMS_MAX),
            "the executions whose rev differs from the one that was sent; as full polls if view is full, but without "
            "payloads for a key that does not see them",
        ),
        unchanged=described(COUNT, "how many have not changed"),
        not_found=array_of(STRING, maxItems=ITEMS_MAX),
        left_out=described(
            array_of(EXECUTION_ID, minItems=1),
            "only with view full: these have changed too, but did not fit into 8 MiB; poll them again",
        ),
        poll_after_ms=described(
            nullable(POLL_AFTER_MS),
            "when to poll again; the minimum if left_out is present; null if all are done",
        ),
        warnings=WARNINGS,
    ),
    "LogLines": object_of(
        "Log lines of all executions, oldest first.",
        logs=array_of(ref("LogLine"), maxItems=LIMIT_MAX),
        count=COUNT,
        next_since=described(nullable(STRING), "pass it back as since; null if there are no lines yet"),
    ),
    "DeadLetter": object_of(
        "What failed for good: a run, or a message that could not be read.", ("times", "integrator"), **_DEAD_LETTER
    ),
    "DismissedLetter": object_of(
        "A dead letter that was dismissed.", ("times", "integrator"), **_DEAD_LETTER, dismissed_at=TIMESTAMP
    ),
    "DeadLetterPage": object_of(
        dead_letters=array_of(ref("DeadLetter"), maxItems=LIMIT_MAX),
        next_cursor=described(nullable(STRING), "pass it back as cursor; null on the last page"),
    ),
    "Change": object_of(
        "An execution that has changed, in its current state; it may be returned more than once.",
        ("reference",),
        **{name: EXECUTION_PROPERTIES[name] for name in _CHANGE_FIELDS},
    ),
    "ChangePage": object_of(
        changes=described(array_of(ref("Change"), maxItems=LIMIT_MAX), "each once, in the order of its latest change"),
        **_END_OF_CHANGES,
    ),
    "ChangePagePart": object_of(
        "A page of changes whose fields the query selects.",
        changes=array_of(ref("ExecutionPart"), maxItems=LIMIT_MAX),
        **_END_OF_CHANGES,
    ),
    "Consumer": object_of("", ("warnings",), **_CONSUMER, warnings=WARNINGS),
    "ConsumerListed": object_of(
        "",
        ("integrator",),
        integrator=_OWNER,
        **_CONSUMER,
        lag_s=described(
            nullable({"type": "number", "minimum": 0}),
            "the age of the oldest change that it has not acknowledged; null if that change is no longer kept",
        ),
        expired=described(BOOLEAN, "true if that change is no longer kept: a GET of its changes is 410"),
    ),
    "ConsumerList": object_of(consumers=array_of(ref("ConsumerListed")), count=COUNT),
    "ConsumerDeleted": object_of(success=_TRUE, message=STRING, consumer=_CONSUMER["consumer"]),
    "AgentSpec": object_of("An agent as its author describes it, and its state.", **_AGENT_PROPERTIES | _AGENT_STATE),
    "BrokenAgent": object_of(
        "An agent whose spec is wrong: it has its folder's name, and what of the spec could be read.",
        tuple(name for name in _AGENT_PROPERTIES if name != "name"),
        **_AGENT_PROPERTIES | {"name": STRING} | _AGENT_STATE,
    ),
    "Basket": object_of(
        "A basket: either agents, in their order, or steps, a graph.",
        ("agents", "steps", "faults", "shared", "integrator"),
        shared=described(BOOLEAN, "if keys are required: whether every integrator can run it"),
        integrator=_OWNER,
        name=BASKET,
        basket_name=described(BASKET, "the same as name"),
        description=STRING,
        agents=array_of(AGENT, minItems=1, maxItems=STEPS_MAX),
        steps=array_of(ref("WrittenStep"), minItems=1, maxItems=STEPS_MAX),
        execution_strategy=STRATEGY,
        faults=described(
            array_of(ref("Fault"), minItems=1),
            "why it cannot run: a rule that is newer than it is, or an agent that is gone or unavailable",
        ),
    ),
    "BasketList": object_of(baskets=array_of(ref("Basket")), count=COUNT),
    "BasketCreated": object_of(
        "", ("warnings",), success=_TRUE, message=STRING, basket=ref("Basket"), warnings=WARNINGS
    ),
    "BasketDeleted": object_of(
        "The basket is deleted; its executions stay readable.",
        success=_TRUE,
        message=STRING,
        cleanup_summary=object_of(baskets_deleted=constant(1), executions_deleted=constant(0)),
    ),
}
