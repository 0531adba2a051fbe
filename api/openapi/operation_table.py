"""The operation table: for each route its parameters and body, its responses, and every error that it may return."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from api.openapi.bulk_operations import LIST_OPERATIONS
from api.openapi.catalogue_operations import CATALOGUE_OPERATIONS
from api.openapi.feed_operations import FEED_OPERATIONS
from api.openapi.json_schema import ref
from api.openapi.operation_types import BODY_ERRORS, STORE_ERRORS, SUBMIT_ERRORS, ErrorTypes, Operation, ResponseSpec
from shared import errors

_EXECUTION_ERRORS: Final[ErrorTypes] = (errors.NotFound, errors.ExecutionNotFound, errors.ExecutionExpired)
_POLL_HEADERS: Final = ("ETag", "Retry-After", "Cache-Private", "Vary")
_ACCEPT_PARAMETERS: Final = ("IdempotencyKey", "Traceparent")
_SUBMIT_PARAMETERS: Final = (*_ACCEPT_PARAMETERS, "Prefer")

_ACCEPTED: Final = ResponseSpec(
    "Stored, and on its way.",
    ref("Accepted"),
    ("Location", "ETag", "Retry-After", "Idempotency-Replayed", "Cache-None"),
    links=("Poll", "Cancel", "Retry"),
)
_SUBMITTED: Final = {
    200: ResponseSpec(
        "Done within the time that Prefer was willing to wait.",
        ref("ExecutionAtItsEnd"),
        ("Location", "ETag", "Idempotency-Replayed", "Preference-Applied", "Cache-None", "Vary"),
        links=("Poll", "Retry"),
    ),
    202: replace(_ACCEPTED, headers=(*_ACCEPTED.headers, "Preference-Applied")),
}
_LONG_POLL_HEADERS: Final = (*_POLL_HEADERS, "Preference-Applied")
_POLL: Final = Operation(
    {
        200: ResponseSpec(
            "The execution as it stands; a failed one too.",
            {"anyOf": [ref("Execution"), ref("ExecutionPart")]},
            _LONG_POLL_HEADERS,
        ),
        304: ResponseSpec("Nothing has changed since the ETag that was sent.", None, _LONG_POLL_HEADERS),
    },
    ("ExecutionId", "Fields", "After", "Limit", "Wait", "Until", "Prefer", "IfNoneMatch"),
    (*_EXECUTION_ERRORS, *STORE_ERRORS),
)
_EXECUTIONS: Final[dict[str, Operation]] = {
    "POST /run-basket": Operation(
        _SUBMITTED,
        _SUBMIT_PARAMETERS,
        (*SUBMIT_ERRORS, errors.BasketNotFound, errors.AgentNotFound),
        body="RunBasket",
    ),
    "POST /run-agent": Operation(
        _SUBMITTED, _SUBMIT_PARAMETERS, (*SUBMIT_ERRORS, errors.AgentNotFound), body="RunAgent"
    ),
    "GET /execution-logs/{execution_id}": _POLL,
    "GET /executions/{execution_id}": _POLL,
    "GET /executions/{execution_id}/outputs/{step}": Operation(
        {200: ResponseSpec("The output as the agent returned it.", {"type": "object"}, ("Cache-Private", "Vary"))},
        ("ExecutionId", "Step"),
        (*_EXECUTION_ERRORS, *STORE_ERRORS),
    ),
    "POST /executions/{execution_id}/cancel": Operation(
        {
            200: ResponseSpec(
                "It was over, or had not begun: it is over now.", ref("ExecutionAskedToStop"), _POLL_HEADERS
            ),
            202: ResponseSpec("A step must stop first; poll on.", ref("ExecutionAskedToStop"), _POLL_HEADERS),
        },
        ("ExecutionId",),
        (*BODY_ERRORS, *_EXECUTION_ERRORS, errors.Unavailable, errors.OutcomeUnknown),
        body="CancelRequest",
        is_body_required=False,
    ),
    "POST /executions/{execution_id}/retry": Operation(
        {202: _ACCEPTED},
        ("ExecutionId", *_ACCEPT_PARAMETERS),
        (*SUBMIT_ERRORS, *_EXECUTION_ERRORS, errors.NotRetryable),
        body="RetryRequest",
        is_body_required=False,
    ),
    "GET /dead-letters": Operation(
        {
            200: ResponseSpec(
                "One page, the newest finished first.",
                ref("DeadLetters"),
                ("Cache-Private", "Vary"),
                links=("Requeue",),
            )
        },
        ("Limit", "Cursor"),
        (errors.CursorInvalid, *STORE_ERRORS),
    ),
    "POST /dead-letters/{letter_id}/requeue": Operation(
        {202: _ACCEPTED},
        ("LetterId", *_ACCEPT_PARAMETERS),
        (*SUBMIT_ERRORS, *_EXECUTION_ERRORS, errors.NotRetryable),
        body="Nothing",
        is_body_required=False,
    ),
}
OPERATIONS: Final = _EXECUTIONS | LIST_OPERATIONS | FEED_OPERATIONS | CATALOGUE_OPERATIONS
