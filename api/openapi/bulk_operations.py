"""Many executions at once: lists, polls of many and batches; forms and routes."""

from __future__ import annotations

from typing import Final

from api.http.query_params import LIMIT_MAX
from api.http.schema_fields import ITEMS_MAX
from api.openapi.json_schema import COUNT, STRING, Json, a_list, exactly, named, or_null, told
from api.openapi.operation_types import ACCEPTING, BODY, STORED, Operation, Reply
from api.openapi.response_schemas import ACCEPTED, EXECUTION, ID, POLL_AFTER_MS, PROBLEM, STATUS, WARNINGS, as_it_ends
from shared import errors

_STANDING: Final = (
    "execution_id", "basket_name", "status", "done", "rev", "progress", "current_step", "error", "tags", "retry_of",
    "created_at", "queued_at", "started_at", "finished_at", "waiting_for", "poll_after_ms",
)  # fmt: skip

_STATUS: Final = told({"type": "integer", "const": 202}, "what the single call would have answered")
_REFUSED: Final = told(
    {"type": "integer", "enum": [400, 404, 422, 500, 503]}, "what the single call would have answered"
)

FORMS: Final[dict[str, Json]] = {
    "BatchAccepted": exactly(
        {
            "items": told(
                a_list(
                    {"anyOf": [named("BatchItemAccepted"), named("BatchItemRefused")]}, minItems=1, maxItems=ITEMS_MAX
                ),
                "what became of each item, in their order",
            ),
            "accepted": COUNT,
            "rejected": COUNT,
            "warnings": WARNINGS,
        },
        optional=["warnings"],
    ),
    "BatchItemAccepted": exactly(
        ACCEPTED
        | {
            "status": _STATUS,
            "execution_status": STATUS,
            "idempotency_replayed": told({"const": True}, "this key had made the execution already"),
        },
        optional=["retry_of", "poll_after_ms", "warnings", "idempotency_replayed"],
        told="The answer to a submit; the execution's own status is execution_status.",
    ),
    "BatchItemRefused": exactly(
        PROBLEM | {"status": _REFUSED},
        told="The problem that the single call would have been answered with.",
    ),
    "Standing": exactly(
        {name: EXECUTION[name] for name in _STANDING},
        optional=["poll_after_ms"],
        told="How an execution stands: what its poll shows, without what can be large.",
    )
    | as_it_ends("error"),
    "Executions": exactly(
        {
            "executions": a_list(named("Standing"), maxItems=LIMIT_MAX),
            "next_cursor": told(or_null(STRING), "pass it back as cursor with the same filters; null on the last page"),
        }
    ),
    "ManyPolled": exactly(
        {
            "changed": told(
                a_list({"anyOf": [named("Standing"), named("Execution")]}, maxItems=ITEMS_MAX),
                "those whose rev is another than the one sent; whole polls with view full",
            ),
            "unchanged": told(COUNT, "how many are as they were"),
            "not_found": a_list(STRING, maxItems=ITEMS_MAX),
            "left_out": told(a_list(ID, minItems=1), "with view full: changed too, but 8 MiB were full; ask again"),
            "poll_after_ms": told(
                or_null(POLL_AFTER_MS),
                "when to ask again; the least where any are left_out, null once all are done and none is",
            ),
            "warnings": WARNINGS,
        },
        optional=["left_out", "warnings"],
    ),
}

_PAGE_HEADERS: Final = ("Cache-Private", "Vary")

LISTS: Final[dict[str, Operation]] = {
    "POST /run-basket/batch": Operation(
        {
            202: Reply(
                "What became of each item; look at their statuses.",
                named("BatchAccepted"),
                ("Idempotency-Replayed", "Cache-None"),
            )
        },
        ("IdempotencyKeyOfBatch", "Traceparent"),
        ACCEPTING,
        body="RunBatch",
    ),
    "GET /executions": Operation(
        {200: Reply("One page.", named("Executions"), _PAGE_HEADERS)},
        (
            "Status", "OfBasket", "OfTag", "OfRequest", "RetryOf", "CreatedAfter", "CreatedBefore", "UpdatedSince",
            "Order", "Limit", "Cursor",
        ),
        (errors.CursorInvalid, *STORED),
    ),
    "POST /executions/poll": Operation(
        {200: Reply("Those that have changed.", named("ManyPolled"), ("Retry-After", *_PAGE_HEADERS))},
        (),
        (*BODY, *STORED),
        body="PollMany",
    ),
}  # fmt: skip
