"""Operations of the change feed and its consumers; with their schemas."""

from __future__ import annotations

from typing import Final

from api.feed.changes import FEED_POLL_AFTER_MAX_MS
from api.http.query_params import LIMIT_MAX
from api.openapi.json_schema import (
    BOOLEAN,
    COUNT,
    STRING,
    TIMESTAMP,
    JsonObject,
    anchored_pattern,
    array_of,
    described,
    nullable,
    object_of,
    ref,
)
from api.openapi.operation_types import BODY_ERRORS, STORE_ERRORS, Operation, ResponseSpec
from api.openapi.response_schemas import EXECUTION_PROPERTIES, POLL_AFTER_MS, WARNINGS
from shared import errors
from shared.ids import CONSUMER_NAME_PATTERN

_NAME: Final[JsonObject] = {"type": "string", "pattern": anchored_pattern(CONSUMER_NAME_PATTERN)}
_CURSOR: Final[JsonObject] = {"type": "string", "minLength": 1}
_CONSUMER: Final[dict[str, JsonObject]] = {
    "consumer": _NAME,
    "cursor": described(_CURSOR, "all before it is acknowledged"),
    "created_at": TIMESTAMP,
    "acked_at": described(nullable(TIMESTAMP), "when it last moved on; null where it never has"),
}

FEED_SCHEMAS: Final[dict[str, JsonObject]] = {
    "Change": object_of(
        {name: EXECUTION_PROPERTIES[name] for name in ("execution_id", "status", "done", "rev", "basket_name", "tags")},
        description="An execution that has changed, as it stands by now; it may come more than once.",
    ),
    "Changes": object_of(
        {
            "changes": described(
                array_of(ref("Change"), maxItems=LIMIT_MAX), "each once, in the order of its latest change"
            ),
            "next_since": described(_CURSOR, "go on from here"),
            "caught_up": described(BOOLEAN, "true where this is all there is by now, as far as can be known"),
            "poll_after_ms": described(
                POLL_AFTER_MS | {"maximum": FEED_POLL_AFTER_MAX_MS}, "when to ask again, in milliseconds"
            ),
        }
    ),
    "Consumer": object_of(_CONSUMER | {"warnings": WARNINGS}, optional=["warnings"]),
    "ConsumerListed": object_of(
        _CONSUMER
        | {
            "lag_s": described(
                nullable({"type": "number", "minimum": 0}), "for how long the first change it has not taken waits"
            ),
            "expired": described(BOOLEAN, "true where that change is no longer kept: its changes are 410"),
        }
    ),
    "Consumers": object_of({"consumers": array_of(ref("ConsumerListed")), "count": COUNT}),
    "ConsumerDeleted": object_of({"success": {"const": True}, "message": STRING, "consumer": _NAME}),
}

_HEADERS: Final = ("Cache-Private", "Vary")
_CHANGES: Final = {
    200: ResponseSpec(
        "What has changed; nothing, where nothing has.",
        ref("Changes"),
        ("Retry-After", *_HEADERS, "Preference-Applied"),
    )
}
_FILTERS: Final = ("Limit", "OfBasket", "OfTag", "Wait", "Prefer")
# NotFound too: a name with an encoded slash in it is another path.
_CONSUMER_ERRORS: Final = (errors.NotFound, errors.ConsumerNotFound)
_WRITE_ERRORS: Final = (*STORE_ERRORS, errors.OutcomeUnknown)

FEED_OPERATIONS: Final[dict[str, Operation]] = {
    "GET /executions/changes": Operation(
        _CHANGES, ("ChangesSince", *_FILTERS), (errors.CursorInvalid, errors.CursorExpired, *STORE_ERRORS)
    ),
    "GET /consumers": Operation(
        {200: ResponseSpec("All of them, by name.", ref("Consumers"), _HEADERS)}, (), STORE_ERRORS
    ),
    "PUT /consumers/{name}": Operation(
        {
            200: ResponseSpec("It was there, and stays where it is.", ref("Consumer"), _HEADERS),
            201: ResponseSpec("It is there now.", ref("Consumer"), _HEADERS),
        },
        ("ConsumerName",),
        (*BODY_ERRORS, errors.NotFound, errors.CursorInvalid, errors.CursorExpired, *_WRITE_ERRORS),
        body="NewConsumer",
        is_body_required=False,
    ),
    "DELETE /consumers/{name}": Operation(
        {200: ResponseSpec("It is forgotten.", ref("ConsumerDeleted"), _HEADERS)},
        ("ConsumerName",),
        (*_CONSUMER_ERRORS, *_WRITE_ERRORS),
    ),
    "GET /consumers/{name}/changes": Operation(
        _CHANGES, ("ConsumerName", *_FILTERS), (*_CONSUMER_ERRORS, errors.CursorExpired, *STORE_ERRORS)
    ),
    "POST /consumers/{name}/ack": Operation(
        {200: ResponseSpec("Where it stands now.", ref("Consumer"), _HEADERS)},
        ("ConsumerName",),
        (*BODY_ERRORS, errors.CursorInvalid, *_CONSUMER_ERRORS, *_WRITE_ERRORS),
        body="Ack",
    ),
}
