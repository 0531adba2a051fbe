"""The table of all routes: what each takes beside its path, what it answers, and every way in which it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from api.openapi.bulk_operations import LISTS
from api.openapi.catalogue_operations import CATALOGUE
from api.openapi.feed_operations import FEED
from api.openapi.json_schema import named
from api.openapi.operation_types import ACCEPTING, BODY, STORED, Operation, Refusals, Reply
from shared import errors

_OF_EXECUTION: Final[Refusals] = (errors.NotFound, errors.ExecutionNotFound, errors.ExecutionExpired)
_POLL_HEADERS: Final = ("ETag", "Retry-After", "Cache-Private", "Vary")
_ACCEPT_PARAMETERS: Final = ("IdempotencyKey", "Traceparent")
_SUBMIT_PARAMETERS: Final = (*_ACCEPT_PARAMETERS, "Prefer")

_ACCEPTED: Final = Reply(
    "Stored, and on its way.",
    named("Accepted"),
    ("Location", "ETag", "Retry-After", "Idempotency-Replayed", "Cache-None"),
    links=("Poll", "Cancel", "Retry"),
)
_SUBMITTED: Final = {
    200: Reply(
        "Done within the time that Prefer was willing to wait.",
        named("ExecutionAtItsEnd"),
        ("Location", "ETag", "Idempotency-Replayed", "Preference-Applied", "Cache-None", "Vary"),
        links=("Poll", "Retry"),
    ),
    202: replace(_ACCEPTED, headers=(*_ACCEPTED.headers, "Preference-Applied")),
}
_HELD_HEADERS: Final = (*_POLL_HEADERS, "Preference-Applied")
_POLL: Final = Operation(
    {
        200: Reply(
            "The execution as it stands; a failed one too.",
            {"anyOf": [named("Execution"), named("ExecutionPart")]},
            _HELD_HEADERS,
        ),
        304: Reply("Nothing has changed since the ETag that was sent.", None, _HELD_HEADERS),
    },
    ("ExecutionId", "Fields", "After", "Limit", "Wait", "Until", "Prefer", "IfNoneMatch"),
    (*_OF_EXECUTION, *STORED),
)
_EXECUTIONS: Final[dict[str, Operation]] = {
    "POST /run-basket": Operation(
        _SUBMITTED,
        _SUBMIT_PARAMETERS,
        (*ACCEPTING, errors.BasketNotFound, errors.AgentNotFound),
        body="RunBasket",
    ),
    "POST /run-agent": Operation(_SUBMITTED, _SUBMIT_PARAMETERS, (*ACCEPTING, errors.AgentNotFound), body="RunAgent"),
    "GET /execution-logs/{execution_id}": _POLL,
    "GET /executions/{execution_id}": _POLL,
    "GET /executions/{execution_id}/outputs/{step}": Operation(
        {200: Reply("The output as the agent returned it.", {"type": "object"}, ("Cache-Private", "Vary"))},
        ("ExecutionId", "Step"),
        (*_OF_EXECUTION, *STORED),
    ),
    "POST /executions/{execution_id}/cancel": Operation(
        {
            200: Reply("It was over, or had not begun: it is over now.", named("ExecutionAskedToStop"), _POLL_HEADERS),
            202: Reply("A step must stop first; poll on.", named("ExecutionAskedToStop"), _POLL_HEADERS),
        },
        ("ExecutionId",),
        (*BODY, *_OF_EXECUTION, errors.Unavailable, errors.OutcomeUnknown),
        body="CancelRequest",
        body_required=False,
    ),
    "POST /executions/{execution_id}/retry": Operation(
        {202: _ACCEPTED},
        ("ExecutionId", *_ACCEPT_PARAMETERS),
        (*ACCEPTING, *_OF_EXECUTION, errors.NotRetryable),
        body="RetryRequest",
        body_required=False,
    ),
    "GET /dead-letters": Operation(
        {
            200: Reply(
                "One page, the newest finished first.",
                named("DeadLetters"),
                ("Cache-Private", "Vary"),
                links=("Requeue",),
            )
        },
        ("Limit", "Cursor"),
        (errors.CursorInvalid, *STORED),
    ),
    "POST /dead-letters/{letter_id}/requeue": Operation(
        {202: _ACCEPTED},
        ("LetterId", *_ACCEPT_PARAMETERS),
        (*ACCEPTING, *_OF_EXECUTION, errors.NotRetryable),
        body="Nothing",
        body_required=False,
    ),
}
OPERATIONS: Final = _EXECUTIONS | LISTS | FEED | CATALOGUE
