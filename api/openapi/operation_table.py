"""The operation table: for each route its parameters and body, its responses, and every error that it may return."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from api.openapi.components import DOCS_FILES
from api.openapi.fleet.operations import FLEET_OPERATIONS
from api.openapi.json_schema import STRING, JsonObject, array_of, ref
from api.openapi.operation import (
    AGENT_ERRORS,
    BASKET_ERRORS,
    BODY_ERRORS,
    CONSUMER_ERRORS,
    EXECUTION_ERRORS,
    PAGE_ERRORS,
    PRIVATE,
    RUN_ERRORS,
    STORE_ERRORS,
    SUBMIT_ERRORS,
    WRITE_ERRORS,
    Operation,
    ResponseSpec,
    ok,
)
from api.openapi.response_schemas import OBJECT
from api.openapi.trust_operations import TRUST_OPERATIONS
from shared import errors

_POLL_HEADERS: Final = ("ETag", "Retry-After", "Cache-Poll", "Vary")
_LONG_POLL_HEADERS: Final = (*_POLL_HEADERS, "Preference-Applied")
_DOCUMENT_HEADERS: Final = ("Document-ETag", "Cache-Revalidate")
_ACCEPT_PARAMETERS: Final = ("IdempotencyKey", "Traceparent")
_SUBMIT_PARAMETERS: Final = (*_ACCEPT_PARAMETERS, "Prefer")
_CHANGES_PARAMETERS: Final = ("Limit", "OfBasket", "OfTag", "RowFields", "Wait", "Prefer", "OfIntegrator")
_LOG_LINES_PARAMETERS: Final = ("Level", "OfExecution", "Since", "Limit", "OfIntegrator")
_LIST_PARAMETERS: Final = (
    "Status", "OfBasket", "OfTag", "OfRequest", "RetryOf", "OfReference", "RunsOfErrorCode", "OfIdempotencyKey",
    "CreatedAfter", "CreatedBefore", "UpdatedSince", "Order", "RowFields", "Limit", "Cursor", "OfIntegrator",
)  # fmt: skip

_ACCEPTED: Final = ResponseSpec(
    "The run is stored and will be executed.",
    ref("Accepted"),
    ("Location", "ETag", "Retry-After", "Idempotency-Replayed", "Cache-None"),
    links=("Poll", "Cancel", "Retry"),
)
_SUBMITTED: Final = {
    200: ResponseSpec(
        "The run was done within the wait that Prefer asks for.",
        ref("FinishedExecution"),
        ("Location", "ETag", "Idempotency-Replayed", "Preference-Applied", "Cache-None", "Vary"),
        links=("Poll", "Retry"),
    ),
    202: replace(_ACCEPTED, headers=(*_ACCEPTED.headers, "Preference-Applied")),
}
_POLL: Final = Operation(
    {
        200: ResponseSpec(
            "The execution in its current state, also if it has failed.",
            {"anyOf": [ref("Execution"), ref("ExecutionPart")]},
            _LONG_POLL_HEADERS,
        ),
        304: ResponseSpec("Nothing has changed since the ETag that was sent.", None, _LONG_POLL_HEADERS),
    },
    ("ExecutionId", "Fields", "After", "Limit", "Wait", "Until", "Prefer", "IfNoneMatch"),
    (*EXECUTION_ERRORS, *STORE_ERRORS),
)
_CHANGES: Final = ok(
    "The changes; may be empty.",
    {"anyOf": [ref("ChangePage"), ref("ChangePagePart")]},
    "Retry-After",
    *PRIVATE,
    "Preference-Applied",
)
_PAGE: Final = ok(
    "A page to read this document and to try the API.",
    STRING,
    *("Content-Security-Policy", "Cross-Origin-Opener-Policy", "Referrer-Policy", "Cache-Revalidate"),
    media_types=("text/html",),
)
_DOCS_MEDIA_TYPES: Final = tuple(sorted(set(DOCS_FILES.values()), reverse=True))  # texts first, as generators take one
_AGENT: Final[JsonObject] = {"anyOf": [ref("AgentSpec"), ref("BrokenAgent")]}
_LOG_LINES: Final = ok("The lines, oldest first.", ref("LogLines"), *PRIVATE)

OPERATIONS: Final[dict[str, Operation]] = {
    "POST /run-basket": Operation(
        _SUBMITTED, _SUBMIT_PARAMETERS, (*RUN_ERRORS, errors.BasketNotFound, errors.AgentNotFound), "RunBasket"
    ),
    "POST /run-agent": Operation(_SUBMITTED, _SUBMIT_PARAMETERS, (*RUN_ERRORS, errors.AgentNotFound), "RunAgent"),
    "POST /run-basket/batch": Operation(
        {
            202: ResponseSpec(
                "One outcome per item; check each status.",
                ref("BatchAccepted"),
                ("Idempotency-Replayed", "Cache-None"),
            )
        },
        ("IdempotencyKeyOfBatch", "Traceparent"),
        SUBMIT_ERRORS,
        "RunBatch",
    ),
    "GET /execution-logs/{execution_id}": _POLL,
    "GET /executions/{execution_id}": _POLL,
    "DELETE /executions/{execution_id}": Operation(
        ok("The execution without its content.", ref("Execution"), *_POLL_HEADERS),
        ("ExecutionId",),
        (*EXECUTION_ERRORS, errors.NotFinal, *WRITE_ERRORS),
    ),
    "GET /executions/{execution_id}/result": Operation(
        {
            200: ResponseSpec("The result, as a poll shows it.", OBJECT, (*PRIVATE, "Preference-Applied")),
            202: ResponseSpec(
                "The run is not done: come back after Retry-After.",
                ref("ExecutionPart"),
                ("Location", "Retry-After", "Cache-None", "Vary", "Preference-Applied"),
            ),
        },
        ("ExecutionId", "Wait", "Prefer"),
        (
            *EXECUTION_ERRORS,
            errors.ExecutionFailed,
            errors.ExecutionCancelled,
            errors.ExecutionErased,
            *STORE_ERRORS,
        ),
    ),
    "GET /executions/{execution_id}/input": Operation(
        ok("The input, `***` in its marked fields.", OBJECT, *PRIVATE),
        ("ExecutionId",),
        (*EXECUTION_ERRORS, errors.ExecutionErased, *STORE_ERRORS),
    ),
    "GET /executions/{execution_id}/outputs/{step}": Operation(
        ok("The output as the agent returned it.", OBJECT, *PRIVATE),
        ("ExecutionId", "Step"),
        (*EXECUTION_ERRORS, errors.ExecutionErased, *STORE_ERRORS),
    ),
    "POST /executions/{execution_id}/cancel": Operation(
        {
            200: ResponseSpec(
                "The run is over: it was over before, or no step was running.", ref("CancelResult"), _POLL_HEADERS
            ),
            202: ResponseSpec("A step must stop first; continue to poll.", ref("CancelResult"), _POLL_HEADERS),
        },
        ("ExecutionId",),
        (*BODY_ERRORS, *EXECUTION_ERRORS, *WRITE_ERRORS),
        "CancelRequest",
        is_body_required=False,
    ),
    "POST /executions/{execution_id}/retry": Operation(
        {202: _ACCEPTED},
        ("ExecutionId", *_ACCEPT_PARAMETERS),
        (*RUN_ERRORS, *EXECUTION_ERRORS, errors.NotRetryable),
        "RetryRequest",
        is_body_required=False,
    ),
    "GET /executions": Operation(
        ok("One page of executions.", {"anyOf": [ref("ExecutionPage"), ref("ExecutionPagePart")]}, *PRIVATE),
        _LIST_PARAMETERS,
        PAGE_ERRORS,
    ),
    "POST /executions/poll": Operation(
        ok("The executions that have changed.", ref("ManyPolled"), "Retry-After", *PRIVATE),
        (),
        (*BODY_ERRORS, *STORE_ERRORS, errors.EncryptionKeyMissing),
        "PollMany",
    ),
    "POST /executions/actions": Operation(
        {202: _ACCEPTED},
        (*_ACCEPT_PARAMETERS, "OfIntegrator"),
        (*SUBMIT_ERRORS, errors.EncryptionKeyMissing),
        "BulkAction",
    ),
    "GET /dead-letters": Operation(
        ok("One page of dead letters, the newest finished first.", ref("DeadLetterPage"), *PRIVATE, links=("Requeue",)),
        ("OfErrorCode", "OfAgent", "LettersOfBasket", "Limit", "Cursor", "OfIntegrator"),
        PAGE_ERRORS,
    ),
    "POST /dead-letters/{letter_id}/requeue": Operation(
        {202: _ACCEPTED},
        ("LetterId", *_ACCEPT_PARAMETERS),
        (*RUN_ERRORS, *EXECUTION_ERRORS, errors.NotRetryable, errors.AlreadyRequeued),
        "Nothing",
        is_body_required=False,
    ),
    "POST /dead-letters/{letter_id}/dismiss": Operation(
        ok("The letter, which is not in the list any more.", ref("DismissedLetter"), *PRIVATE),
        ("LetterId",),
        (*BODY_ERRORS, *WRITE_ERRORS, errors.NotFound, errors.ExecutionExpired, errors.AlreadyRequeued),
        "Nothing",
        is_body_required=False,
    ),
    "GET /executions/changes": Operation(
        _CHANGES, ("ChangesSince", *_CHANGES_PARAMETERS), (errors.CursorExpired, *PAGE_ERRORS)
    ),
    "GET /consumers": Operation(
        ok("All consumers, sorted by name.", ref("ConsumerList"), *PRIVATE), ("OfIntegrator",), STORE_ERRORS
    ),
    "PUT /consumers/{name}": Operation(
        {
            200: ResponseSpec("Existed, unchanged.", ref("Consumer"), PRIVATE),
            201: ResponseSpec("Created.", ref("Consumer"), PRIVATE),
        },
        ("ConsumerName", "OfIntegrator"),
        (*BODY_ERRORS, errors.NotFound, errors.CursorInvalid, errors.CursorExpired, *WRITE_ERRORS),
        "NewConsumer",
        is_body_required=False,
    ),
    "DELETE /consumers/{name}": Operation(
        ok("Deleted.", ref("ConsumerDeleted"), *PRIVATE),
        ("ConsumerName", "OfIntegrator"),
        (*CONSUMER_ERRORS, *WRITE_ERRORS),
    ),
    "GET /consumers/{name}/changes": Operation(
        _CHANGES,
        ("ConsumerName", *_CHANGES_PARAMETERS),
        (*CONSUMER_ERRORS, errors.CursorExpired, errors.EncryptionKeyMissing, *STORE_ERRORS),
    ),
    "POST /consumers/{name}/ack": Operation(
        ok("The consumer after the ack.", ref("Consumer"), *PRIVATE),
        ("ConsumerName", "OfIntegrator"),
        (*BODY_ERRORS, errors.CursorInvalid, *CONSUMER_ERRORS, errors.CursorExpired, *WRITE_ERRORS),
        "Ack",
    ),
    "GET /agents": Operation(ok("The agents, sorted by name.", array_of(_AGENT), "Cache-None"), ("Domain",)),
    "GET /agents/{name}": Operation(ok("The agent.", _AGENT, "Cache-None"), ("AgentName",), AGENT_ERRORS),
    "GET /baskets": Operation(
        ok("The baskets, sorted by name.", ref("BasketList"), "Cache-None"), ("OfIntegrator",), STORE_ERRORS
    ),
    "GET /baskets/{name}": Operation(
        ok("The basket.", ref("Basket"), "Cache-None"), ("BasketName", "OfIntegrator"), (*BASKET_ERRORS, *STORE_ERRORS)
    ),
    "POST /create-basket": Operation(
        {201: ResponseSpec("Created.", ref("BasketCreated"), ("Cache-None",))},
        ("OfIntegrator",),
        (*BODY_ERRORS, errors.UnknownAgent, errors.BasketExists, *WRITE_ERRORS),
        "NewBasket",
    ),
    "DELETE /baskets/{name}": Operation(
        ok("Deleted.", ref("BasketDeleted"), "Cache-None"),
        ("BasketName", "OfIntegrator"),
        (*BASKET_ERRORS, *WRITE_ERRORS),
    ),
    "GET /logs": Operation(_LOG_LINES, ("Agent", *_LOG_LINES_PARAMETERS), PAGE_ERRORS),
    "GET /agent-logs/{name}": Operation(
        _LOG_LINES, ("AgentName", *_LOG_LINES_PARAMETERS), (*AGENT_ERRORS, *PAGE_ERRORS)
    ),
    "GET /metrics": Operation(
        ok("The metrics in the text format of Prometheus.", STRING, "Cache-None", media_types=("text/plain",)),
        is_unversioned=True,
    ),
    "GET /openapi.json": Operation(
        {
            200: ResponseSpec("This document.", OBJECT, _DOCUMENT_HEADERS),
            304: ResponseSpec("The document has not changed.", None, _DOCUMENT_HEADERS),
        },
        ("IfNoneMatch",),
        is_unversioned=True,
    ),
    "GET /docs": Operation(_PAGE, is_unversioned=True),
    "GET /docs/{file}": Operation(
        ok("A script, a style or an icon of that page.", STRING, "Cache-Hour", media_types=_DOCS_MEDIA_TYPES),
        ("DocsFile",),
        (errors.NotFound,),
        is_unversioned=True,
    ),
    "GET /problems/{code}": Operation(
        ok("What the code means and what to do about it.", STRING, "Cache-Hour", media_types=("text/plain",)),
        ("ProblemCode",),
        (errors.NotFound,),
        is_unversioned=True,
    ),
    **FLEET_OPERATIONS,
    **TRUST_OPERATIONS,
}
