"""Operations on many executions at once: lists, bulk polls and batches; with their schemas."""

from __future__ import annotations

from typing import Final

from api.http.query_params import LIMIT_MAX
from api.http.schema_fields import ITEMS_MAX
from api.openapi.json_schema import COUNT, STRING, JsonObject, array_of, described, nullable, object_of, ref
from api.openapi.operation_types import BODY_ERRORS, STORE_ERRORS, SUBMIT_ERRORS, Operation, ResponseSpec
from api.openapi.response_schemas import (
    ACCEPTED_PROPERTIES,
    EXECUTION_ID_SCHEMA,
    EXECUTION_PROPERTIES,
    POLL_AFTER_MS,
    PROBLEM_PROPERTIES,
    STATUS,
    WARNINGS,
    final_or_live_rules,
)
from shared import errors

_SUMMARY_FIELDS: Final = (
    "execution_id", "basket_name", "status", "done", "rev", "progress", "current_step", "error", "tags", "retry_of",
    "created_at", "queued_at", "started_at", "finished_at", "waiting_for", "poll_after_ms",
)  # fmt: skip

_STATUS: Final = described({"type": "integer", "const": 202}, "what the single call would have answered")
_REFUSED: Final = described(
    {"type": "integer", "enum": [400, 404, 422, 500, 503]}, "what the single call would have answered"
)

LIST_SCHEMAS: Final[dict[str, JsonObject]] = {
    "BatchAccepted": object_of(
        {
            "items": described(
                array_of(
                    {"anyOf": [ref("BatchItemAccepted"), ref("BatchItemRefused")]}, minItems=1, maxItems=ITEMS_MAX
                ),
                "what became of each item, in their order",
            ),
            "accepted": COUNT,
            "rejected": COUNT,
            "warnings": WARNINGS,
        },
        optional=["warnings"],
    ),
    "BatchItemAccepted": object_of(
        ACCEPTED_PROPERTIES
        | {
            "status": _STATUS,
            "execution_status": STATUS,
            "idempotency_replayed": described({"const": True}, "this key had made the execution already"),
        },
        optional=["retry_of", "poll_after_ms", "warnings", "idempotency_replayed"],
        description="The answer to a submit; the execution's own status is execution_status.",
    ),
    "BatchItemRefused": object_of(
        PROBLEM_PROPERTIES | {"status": _REFUSED},
        description="The problem that the single call would have been answered with.",
    ),
    "Standing": object_of(
        {name: EXECUTION_PROPERTIES[name] for name in _SUMMARY_FIELDS},
        optional=["poll_after_ms"],
        description="How an execution stands: what its poll shows, without what can be large.",
    )
    | final_or_live_rules("error"),
    "Executions": object_of(
        {
            "executions": array_of(ref("Standing"), maxItems=LIMIT_MAX),
            "next_cursor": described(
                nullable(STRING), "pass it back as cursor with the same filters; null on the last page"
            ),
        }
    ),
    "ManyPolled": object_of(
        {
            "changed": described(
                array_of({"anyOf": [ref("Standing"), ref("Execution")]}, maxItems=ITEMS_MAX),
                "those whose rev is another than the one sent; whole polls with view full",
            ),
            "unchanged": described(COUNT, "how many are as they were"),
            "not_found": array_of(STRING, maxItems=ITEMS_MAX),
            "left_out": described(
                array_of(EXECUTION_ID_SCHEMA, minItems=1), "with view full: changed too, but 8 MiB were full; ask again"
            ),
            "poll_after_ms": described(
                nullable(POLL_AFTER_MS),
                "when to ask again; the least where any are left_out, null once all are done and none is",
            ),
            "warnings": WARNINGS,
        },
        optional=["left_out", "warnings"],
    ),
}

_PAGE_HEADERS: Final = ("Cache-Private", "Vary")

LIST_OPERATIONS: Final[dict[str, Operation]] = {
    "POST /run-basket/batch": Operation(
        {
            202: ResponseSpec(
                "What became of each item; look at their statuses.",
                ref("BatchAccepted"),
                ("Idempotency-Replayed", "Cache-None"),
            )
        },
        ("IdempotencyKeyOfBatch", "Traceparent"),
        SUBMIT_ERRORS,
        body="RunBatch",
    ),
    "GET /executions": Operation(
        {200: ResponseSpec("One page.", ref("Executions"), _PAGE_HEADERS)},
        (
            "Status", "OfBasket", "OfTag", "OfRequest", "RetryOf", "CreatedAfter", "CreatedBefore", "UpdatedSince",
            "Order", "Limit", "Cursor",
        ),
        (errors.CursorInvalid, *STORE_ERRORS),
    ),
    "POST /executions/poll": Operation(
        {200: ResponseSpec("Those that have changed.", ref("ManyPolled"), ("Retry-After", *_PAGE_HEADERS))},
        (),
        (*BODY_ERRORS, *STORE_ERRORS),
        body="PollMany",
    ),
}  # fmt: skip
