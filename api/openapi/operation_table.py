"""The operation table: for each route its parameters and body, its responses, and every error that it may return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from api.openapi.components import DOCS_FILES
from api.openapi.json_schema import STRING, JsonObject, array_of, ref
from api.openapi.response_schemas import OBJECT
from shared import errors

ErrorTypes = tuple[type[errors.BucketError], ...]


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """One response: the schema of its body (None for no body), its headers and links, the codes of an error."""

    description: str
    schema: JsonObject | None = None
    headers: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ("application/json",)
    links: tuple[str, ...] = ()
    error_codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; every operation also has X-Request-ID both ways and can fail with 400 and 500."""

    responses: Mapping[int, ResponseSpec]
    parameters: tuple[str, ...] = ()
    error_types: ErrorTypes = ()
    body: str | None = None
    is_body_required: bool = True
    is_unversioned: bool = False


def _ok(description: str, schema: JsonObject, *headers: str, **more: Any) -> dict[int, ResponseSpec]:
    """Return the responses of an operation whose only success is 200."""
    return {200: ResponseSpec(description, schema, headers, **more)}


_STORE_ERRORS: Final[ErrorTypes] = (errors.Unavailable,)
_WRITE_ERRORS: Final[ErrorTypes] = (errors.Unavailable, errors.OutcomeUnknown)
_PAGE_ERRORS: Final[ErrorTypes] = (errors.CursorInvalid, errors.Unavailable)
_BODY_ERRORS: Final[ErrorTypes] = (
    errors.RequestTimeout,
    errors.InvalidJson,
    errors.CallbacksNotSupported,
    errors.CredentialsNotAccepted,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
)
_SUBMIT_ERRORS: Final[ErrorTypes] = (
    *_BODY_ERRORS,
    errors.IdempotencyKeyReused,
    errors.Unavailable,
    errors.Overloaded,
    errors.OutcomeUnknown,
)
_RUN_ERRORS: Final[ErrorTypes] = (*_SUBMIT_ERRORS, errors.AgentUnavailable)
# NotFound with each: a name or an id with an encoded slash in it is another path.
_EXECUTION_ERRORS: Final[ErrorTypes] = (errors.NotFound, errors.ExecutionNotFound, errors.ExecutionExpired)
_CONSUMER_ERRORS: Final[ErrorTypes] = (errors.NotFound, errors.ConsumerNotFound)
_BASKET_ERRORS: Final[ErrorTypes] = (errors.NotFound, errors.BasketNotFound)
_AGENT_ERRORS: Final[ErrorTypes] = (errors.NotFound, errors.AgentNotFound)

_PRIVATE: Final = ("Cache-Private", "Vary")
_POLL_HEADERS: Final = ("ETag", "Retry-After", "Cache-Poll", "Vary")
_LONG_POLL_HEADERS: Final = (*_POLL_HEADERS, "Preference-Applied")
_DOCUMENT_HEADERS: Final = ("Document-ETag", "Cache-Revalidate")
_ACCEPT_PARAMETERS: Final = ("IdempotencyKey", "Traceparent")
_SUBMIT_PARAMETERS: Final = (*_ACCEPT_PARAMETERS, "Prefer")
_CHANGES_PARAMETERS: Final = ("Limit", "OfBasket", "OfTag", "RowFields", "Wait", "Prefer")
_LOG_LINES_PARAMETERS: Final = ("Level", "OfExecution", "Since", "Limit")
_LIST_PARAMETERS: Final = (
    "Status", "OfBasket", "OfTag", "OfRequest", "RetryOf", "OfReference", "OfIdempotencyKey", "CreatedAfter",
    "CreatedBefore", "UpdatedSince", "Order", "RowFields", "Limit", "Cursor",
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
    (*_EXECUTION_ERRORS, *_STORE_ERRORS),
)
_CHANGES: Final = _ok(
    "The changes; may be empty.",
    {"anyOf": [ref("ChangePage"), ref("ChangePagePart")]},
    "Retry-After",
    *_PRIVATE,
    "Preference-Applied",
)
_PAGE: Final = _ok(
    "A page to read this document and to try the API.",
    STRING,
    *("Content-Security-Policy", "Cross-Origin-Opener-Policy", "Referrer-Policy", "Cache-Revalidate"),
    media_types=("text/html",),
)
_DOCS_MEDIA_TYPES: Final = tuple(sorted(set(DOCS_FILES.values()), reverse=True))  # texts first, as generators take one
_AGENT: Final[JsonObject] = {"anyOf": [ref("AgentSpec"), ref("BrokenAgent")]}
_LOG_LINES: Final = _ok("The lines, oldest first.", ref("LogLines"), *_PRIVATE)

OPERATIONS: Final[dict[str, Operation]] = {
    "POST /run-basket": Operation(
        _SUBMITTED, _SUBMIT_PARAMETERS, (*_RUN_ERRORS, errors.BasketNotFound, errors.AgentNotFound), "RunBasket"
    ),
    "POST /run-agent": Operation(_SUBMITTED, _SUBMIT_PARAMETERS, (*_RUN_ERRORS, errors.AgentNotFound), "RunAgent"),
    "POST /run-basket/batch": Operation(
        {
            202: ResponseSpec(
                "One outcome per item; check each status.",
                ref("BatchAccepted"),
                ("Idempotency-Replayed", "Cache-None"),
            )
        },
        ("IdempotencyKeyOfBatch", "Traceparent"),
        _SUBMIT_ERRORS,
        "RunBatch",
    ),
    "GET /execution-logs/{execution_id}": _POLL,
    "GET /executions/{execution_id}": _POLL,
    "GET /executions/{execution_id}/result": Operation(
        {
            200: ResponseSpec("The result, as a poll shows it.", OBJECT, (*_PRIVATE, "Preference-Applied")),
            202: ResponseSpec(
                "The run is not done: come back after Retry-After.",
                ref("ExecutionPart"),
                ("Location", "Retry-After", "Cache-None", "Vary", "Preference-Applied"),
            ),
        },
        ("ExecutionId", "Wait", "Prefer"),
        (*_EXECUTION_ERRORS, errors.ExecutionFailed, errors.ExecutionCancelled, *_STORE_ERRORS),
    ),
    "GET /executions/{execution_id}/outputs/{step}": Operation(
        _ok("The output as the agent returned it.", OBJECT, *_PRIVATE),
        ("ExecutionId", "Step"),
        (*_EXECUTION_ERRORS, *_STORE_ERRORS),
    ),
    "POST /executions/{execution_id}/cancel": Operation(
        {
            200: ResponseSpec(
                "The run is over: it was over before, or no step was running.", ref("CancelResult"), _POLL_HEADERS
            ),
            202: ResponseSpec("A step must stop first; continue to poll.", ref("CancelResult"), _POLL_HEADERS),
        },
        ("ExecutionId",),
        (*_BODY_ERRORS, *_EXECUTION_ERRORS, *_WRITE_ERRORS),
        "CancelRequest",
        is_body_required=False,
    ),
    "POST /executions/{execution_id}/retry": Operation(
        {202: _ACCEPTED},
        ("ExecutionId", *_ACCEPT_PARAMETERS),
        (*_RUN_ERRORS, *_EXECUTION_ERRORS, errors.NotRetryable),
        "RetryRequest",
        is_body_required=False,
    ),
    "GET /executions": Operation(
        _ok("One page of executions.", {"anyOf": [ref("ExecutionPage"), ref("ExecutionPagePart")]}, *_PRIVATE),
        _LIST_PARAMETERS,
        _PAGE_ERRORS,
    ),
    "POST /executions/poll": Operation(
        _ok("The executions that have changed.", ref("ManyPolled"), "Retry-After", *_PRIVATE),
        (),
        (*_BODY_ERRORS, *_STORE_ERRORS),
        "PollMany",
    ),
    "GET /dead-letters": Operation(
        _ok(
            "One page of dead letters, the newest finished first.", ref("DeadLetterPage"), *_PRIVATE, links=("Requeue",)
        ),
        ("Limit", "Cursor"),
        _PAGE_ERRORS,
    ),
    "POST /dead-letters/{letter_id}/requeue": Operation(
        {202: _ACCEPTED},
        ("LetterId", *_ACCEPT_PARAMETERS),
        (*_RUN_ERRORS, *_EXECUTION_ERRORS, errors.NotRetryable),
        "Nothing",
        is_body_required=False,
    ),
    "GET /executions/changes": Operation(
        _CHANGES, ("ChangesSince", *_CHANGES_PARAMETERS), (errors.CursorExpired, *_PAGE_ERRORS)
    ),
    "GET /consumers": Operation(
        _ok("All consumers, sorted by name.", ref("ConsumerList"), *_PRIVATE), (), _STORE_ERRORS
    ),
    "PUT /consumers/{name}": Operation(
        {
            200: ResponseSpec("Existed, unchanged.", ref("Consumer"), _PRIVATE),
            201: ResponseSpec("Created.", ref("Consumer"), _PRIVATE),
        },
        ("ConsumerName",),
        (*_BODY_ERRORS, errors.NotFound, errors.CursorInvalid, errors.CursorExpired, *_WRITE_ERRORS),
        "NewConsumer",
        is_body_required=False,
    ),
    "DELETE /consumers/{name}": Operation(
        _ok("Deleted.", ref("ConsumerDeleted"), *_PRIVATE),
        ("ConsumerName",),
        (*_CONSUMER_ERRORS, *_WRITE_ERRORS),
    ),
    "GET /consumers/{name}/changes": Operation(
        _CHANGES, ("ConsumerName", *_CHANGES_PARAMETERS), (*_CONSUMER_ERRORS, errors.CursorExpired, *_STORE_ERRORS)
    ),
    "POST /consumers/{name}/ack": Operation(
        _ok("The consumer after the ack.", ref("Consumer"), *_PRIVATE),
        ("ConsumerName",),
        (*_BODY_ERRORS, errors.CursorInvalid, *_CONSUMER_ERRORS, errors.CursorExpired, *_WRITE_ERRORS),
        "Ack",
    ),
    "GET /agents": Operation(_ok("The agents, sorted by name.", array_of(_AGENT), "Cache-None"), ("Domain",)),
    "GET /agents/{name}": Operation(_ok("The agent.", _AGENT, "Cache-None"), ("AgentName",), _AGENT_ERRORS),
    "GET /baskets": Operation(_ok("The baskets, sorted by name.", ref("BasketList"), "Cache-None"), (), _STORE_ERRORS),
    "GET /baskets/{name}": Operation(
        _ok("The basket.", ref("Basket"), "Cache-None"), ("BasketName",), (*_BASKET_ERRORS, *_STORE_ERRORS)
    ),
    "POST /create-basket": Operation(
        {201: ResponseSpec("Created.", ref("BasketCreated"), ("Cache-None",))},
        (),
        (*_BODY_ERRORS, errors.UnknownAgent, errors.BasketExists, *_WRITE_ERRORS),
        "NewBasket",
    ),
    "DELETE /baskets/{name}": Operation(
        _ok("Deleted.", ref("BasketDeleted"), "Cache-None"), ("BasketName",), (*_BASKET_ERRORS, *_WRITE_ERRORS)
    ),
    "GET /logs": Operation(_LOG_LINES, ("Agent", *_LOG_LINES_PARAMETERS), _PAGE_ERRORS),
    "GET /agent-logs/{name}": Operation(
        _LOG_LINES, ("AgentName", *_LOG_LINES_PARAMETERS), (*_AGENT_ERRORS, *_PAGE_ERRORS)
    ),
    "GET /health": Operation(_ok("The state of the services.", ref("Health"), "Cache-None")),
    "GET /ready": Operation(_ok("Runs are accepted.", ref("Ready"), "Cache-None"), (), _STORE_ERRORS),
    "GET /metrics": Operation(
        _ok("The metrics in the text format of Prometheus.", STRING, "Cache-None", media_types=("text/plain",)),
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
        _ok("A script, a style or an icon of that page.", STRING, "Cache-Hour", media_types=_DOCS_MEDIA_TYPES),
        ("DocsFile",),
        (errors.NotFound,),
        is_unversioned=True,
    ),
    "GET /problems/{code}": Operation(
        _ok("What the code means and what to do about it.", STRING, "Cache-Hour", media_types=("text/plain",)),
        ("ProblemCode",),
        (errors.NotFound,),
        is_unversioned=True,
    ),
    "GET /": Operation(_PAGE, is_unversioned=True),
}
