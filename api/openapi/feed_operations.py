"""The change feed and its consumers; forms and routes."""

from __future__ import annotations

from typing import Final

from api.feed.changes import MOST_MS
from api.http.query_params import LIMIT_MAX
from api.openapi.json_schema import BOOLEAN, COUNT, MOMENT, STRING, Json, a_list, exactly, named, or_null, told, whole
from api.openapi.operation_types import BODY, STORED, Operation, Reply
from api.openapi.response_schemas import EXECUTION, POLL_AFTER_MS, WARNINGS
from shared import errors
from shared.ids import CONSUMER_NAME

_NAME: Final[Json] = {"type": "string", "pattern": whole(CONSUMER_NAME)}
_CURSOR: Final[Json] = {"type": "string", "minLength": 1}
_CONSUMER: Final[dict[str, Json]] = {
    "consumer": _NAME,
    "cursor": told(_CURSOR, "all before it is acknowledged"),
    "created_at": MOMENT,
    "acked_at": told(or_null(MOMENT), "when it last moved on; null where it never has"),
}

FORMS: Final[dict[str, Json]] = {
    "Change": exactly(
        {name: EXECUTION[name] for name in ("execution_id", "status", "done", "rev", "basket_name", "tags")},
        told="An execution that has changed, as it stands by now; it may come more than once.",
    ),
    "Changes": exactly(
        {
            "changes": told(
                a_list(named("Change"), maxItems=LIMIT_MAX), "each once, in the order of its latest change"
            ),
            "next_since": told(_CURSOR, "go on from here"),
            "caught_up": told(BOOLEAN, "true where this is all there is by now, as far as can be known"),
            "poll_after_ms": told(POLL_AFTER_MS | {"maximum": MOST_MS}, "when to ask again, in milliseconds"),
        }
    ),
    "Consumer": exactly(_CONSUMER | {"warnings": WARNINGS}, optional=["warnings"]),
    "ConsumerListed": exactly(
        _CONSUMER
        | {
            "lag_s": told(
                or_null({"type": "number", "minimum": 0}), "for how long the first change it has not taken waits"
            ),
            "expired": told(BOOLEAN, "true where that change is no longer kept: its changes are 410"),
        }
    ),
    "Consumers": exactly({"consumers": a_list(named("ConsumerListed")), "count": COUNT}),
    "ConsumerDeleted": exactly({"success": {"const": True}, "message": STRING, "consumer": _NAME}),
}

_HEADERS: Final = ("Cache-Private", "Vary")
_CHANGES: Final = {
    200: Reply(
        "What has changed; nothing, where nothing has.",
        named("Changes"),
        ("Retry-After", *_HEADERS, "Preference-Applied"),
    )
}
_FILTERS: Final = ("Limit", "OfBasket", "OfTag", "Wait", "Prefer")
# A name with an encoded slash in it is another address.
_OF_CONSUMER: Final = (errors.NotFound, errors.ConsumerNotFound)
_WRITTEN: Final = (*STORED, errors.OutcomeUnknown)

FEED: Final[dict[str, Operation]] = {
    "GET /executions/changes": Operation(
        _CHANGES, ("ChangesSince", *_FILTERS), (errors.CursorInvalid, errors.CursorExpired, *STORED)
    ),
    "GET /consumers": Operation({200: Reply("All of them, by name.", named("Consumers"), _HEADERS)}, (), STORED),
    "PUT /consumers/{name}": Operation(
        {
            200: Reply("It was there, and stays where it is.", named("Consumer"), _HEADERS),
            201: Reply("It is there now.", named("Consumer"), _HEADERS),
        },
        ("ConsumerName",),
        (*BODY, errors.NotFound, errors.CursorInvalid, errors.CursorExpired, *_WRITTEN),
        body="NewConsumer",
        body_required=False,
    ),
    "DELETE /consumers/{name}": Operation(
        {200: Reply("It is forgotten.", named("ConsumerDeleted"), _HEADERS)},
        ("ConsumerName",),
        (*_OF_CONSUMER, *_WRITTEN),
    ),
    "GET /consumers/{name}/changes": Operation(
        _CHANGES, ("ConsumerName", *_FILTERS), (*_OF_CONSUMER, errors.CursorExpired, *STORED)
    ),
    "POST /consumers/{name}/ack": Operation(
        {200: Reply("Where it stands now.", named("Consumer"), _HEADERS)},
        ("ConsumerName",),
        (*BODY, errors.CursorInvalid, *_OF_CONSUMER, *_WRITTEN),
        body="Ack",
    ),
}
