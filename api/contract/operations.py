"""The table of all routes: what each takes beside its path, what it answers, and every way in which it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from api.contract.forms import STRING, Json, a_list, named
from shared import errors
from shared.errors import BucketError

Refusals = tuple[type[BucketError], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One status that is no error: its body's form (None for no body) and the headers it bears."""

    description: str
    form: Json | None = None
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; every operation also bears X-Request-ID both ways and can fail with 400 and 500."""

    replies: Mapping[int, Reply]
    parameters: tuple[str, ...] = ()
    refusals: Refusals = ()
    body: str | None = None
    body_required: bool = True
    at_root_alone: bool = False


_STORED: Final[Refusals] = (errors.Unavailable,)
_BODY: Final[Refusals] = (
    errors.InvalidJson,
    errors.CallbacksNotSupported,
    errors.CredentialsNotAccepted,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
)
_ACCEPTING: Final[Refusals] = (
    *_BODY,
    errors.IdempotencyKeyReused,
    errors.Unavailable,
    errors.Overloaded,
    errors.OutcomeUnknown,
)
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
    (*_OF_EXECUTION, *_STORED),
)
_LINES: Final = {200: Reply("The lines, oldest first.", named("LogLines"), ("Cache-Private",))}
_DOCUMENT_HEADERS: Final = ("Document-ETag", "Cache-Asked")
_PAGE_HEADERS: Final = ("Content-Security-Policy", "Cross-Origin-Opener-Policy", "Referrer-Policy", "Cache-Asked")
_LINES_PARAMETERS: Final = ("Level", "OfExecution", "Since", "Limit")


def _plain(description: str, form: Json) -> dict[int, Reply]:
    return {200: Reply(description, form)}


OPERATIONS: Final[dict[str, Operation]] = {
    "POST /run-basket": Operation(
        _SUBMITTED,
        _SUBMIT_PARAMETERS,
        (*_ACCEPTING, errors.BasketNotFound, errors.AgentNotFound),
        body="RunBasket",
    ),
    "POST /run-agent": Operation(_SUBMITTED, _SUBMIT_PARAMETERS, (*_ACCEPTING, errors.AgentNotFound), body="RunAgent"),
    "GET /execution-logs/{execution_id}": _POLL,
    "GET /executions/{execution_id}": _POLL,
    "GET /executions/{execution_id}/outputs/{step}": Operation(
        {200: Reply("The output as the agent returned it.", {"type": "object"}, ("Cache-Private", "Vary"))},
        ("ExecutionId", "Step"),
        (*_OF_EXECUTION, *_STORED),
    ),
    "POST /executions/{execution_id}/cancel": Operation(
        {
            200: Reply("It was over, or had not begun: it is over now.", named("Execution"), _POLL_HEADERS),
            202: Reply("A step must stop first; poll on.", named("Execution"), _POLL_HEADERS),
        },
        ("ExecutionId",),
        (*_BODY, *_OF_EXECUTION, errors.Unavailable, errors.OutcomeUnknown),
        body="CancelRequest",
        body_required=False,
    ),
    "POST /executions/{execution_id}/retry": Operation(
        {202: _ACCEPTED},
        ("ExecutionId", *_ACCEPT_PARAMETERS),
        (*_ACCEPTING, *_OF_EXECUTION, errors.NotRetryable),
        body="RetryRequest",
        body_required=False,
    ),
    "GET /dead-letters": Operation(
        {
            200: Reply(
                "One page, the newest finished first.", named("DeadLetters"), ("Cache-Private",), links=("Requeue",)
            )
        },
        ("Limit", "Cursor"),
        (errors.CursorInvalid, *_STORED),
    ),
    "POST /dead-letters/{letter_id}/requeue": Operation(
        {202: _ACCEPTED},
        ("LetterId", *_ACCEPT_PARAMETERS),
        (*_ACCEPTING, *_OF_EXECUTION, errors.NotRetryable),
        body="Nothing",
        body_required=False,
    ),
    "GET /agents": Operation(_plain("The specs by name.", a_list(named("AgentSpec"))), ("Domain",)),
    "GET /agents/{name}": Operation(
        _plain("The spec.", named("AgentSpec")), ("AgentName",), (errors.NotFound, errors.AgentNotFound)
    ),
    "GET /baskets": Operation(_plain("The baskets by name.", named("Baskets")), (), _STORED),
    "GET /baskets/{name}": Operation(
        _plain("The basket.", named("Basket")), ("BasketName",), (errors.NotFound, errors.BasketNotFound, *_STORED)
    ),
    "POST /create-basket": Operation(
        {201: Reply("The basket is there.", named("BasketCreated"))},
        (),
        (
            *_BODY,
            errors.UnknownAgent,
            errors.AgentNotFound,
            errors.BasketExists,
            errors.Unavailable,
            errors.OutcomeUnknown,
        ),
        body="NewBasket",
    ),
    "DELETE /baskets/{name}": Operation(
        _plain("The basket is gone.", named("BasketDeleted")),
        ("BasketName",),
        (errors.NotFound, errors.BasketNotFound, errors.Unavailable, errors.OutcomeUnknown),
    ),
    "GET /logs": Operation(_LINES, ("Agent", *_LINES_PARAMETERS), (errors.CursorInvalid, *_STORED)),
    "GET /agent-logs/{name}": Operation(
        _LINES,
        ("AgentName", *_LINES_PARAMETERS),
        (errors.CursorInvalid, errors.NotFound, errors.AgentNotFound, *_STORED),
    ),
    "GET /health": Operation({200: Reply("How the services are.", named("Health"), ("Cache-None",))}),
    "GET /ready": Operation({200: Reply("Runs are accepted.", named("Ready"), ("Cache-None",))}, (), _STORED),
    "GET /metrics": Operation({200: Reply("Prometheus text.", STRING, (), "text/plain")}, at_root_alone=True),
    "GET /openapi.json": Operation(
        {
            200: Reply("This document.", {"type": "object", "required": ["openapi", "paths"]}, _DOCUMENT_HEADERS),
            304: Reply("It has not changed.", None, _DOCUMENT_HEADERS),
        },
        ("IfNoneMatch",),
        at_root_alone=True,
    ),
    "GET /docs": Operation(
        {200: Reply("A page to read this document and to try it.", STRING, _PAGE_HEADERS, "text/html")},
        at_root_alone=True,
    ),
    "GET /docs/{file}": Operation(
        {200: Reply("A script, a style or an icon of that page.", STRING, ("Cache-Hour",), "*/*")},
        ("DocsFile",),
        (errors.NotFound,),
        at_root_alone=True,
    ),
    "GET /": Operation({302: Reply("To /docs.", None, ("Docs-Location", "Cache-Asked"))}, at_root_alone=True),
}
