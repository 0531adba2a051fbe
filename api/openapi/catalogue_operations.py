"""Operations that are not about runs: agents, baskets, log lines, health, the contract itself; with their schemas."""

from __future__ import annotations

from typing import Final

from api.openapi.json_schema import BOOLEAN, COUNT, STRING, JsonObject, array_of, described, enum_of, object_of, ref
from api.openapi.operation_types import BODY_ERRORS, STORE_ERRORS, Operation, ResponseSpec, ok_response
from api.openapi.response_schemas import AGENT, BASKET, OBJECT, STRATEGY, WARNINGS
from shared import errors
from shared.domain.definitions.agent_spec import QUEUE_NAMES, RETRY_POLICY_NAMES, TIMEOUT_MAX_S
from shared.domain.definitions.basket import STEPS_MAX

CATALOGUE_SCHEMAS: Final[dict[str, JsonObject]] = {
    "AgentSpec": object_of(
        {
            "name": AGENT,
            "version": STRING,
            "description": STRING,
            "domains": array_of(STRING, minItems=1),
            "entry": STRING,
            "capabilities": object_of({"chainable": BOOLEAN, "memory_access": BOOLEAN, "idempotent": BOOLEAN}),
            "input_schema": described(OBJECT, "JSON Schema 2020-12"),
            "output_schema": described(OBJECT, "JSON Schema 2020-12"),
            "sample_input": OBJECT,
            "sample_output": OBJECT,
            "timeout_s": {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MAX_S},
            "retry": {"anyOf": [enum_of(*RETRY_POLICY_NAMES), OBJECT]},
            "queue": enum_of(*QUEUE_NAMES),
        },
        description="An agent as its author describes it.",
    ),
    "Basket": object_of(
        {
            "name": BASKET,
            "basket_name": described(BASKET, "the same as name"),
            "description": STRING,
            "agents": array_of(AGENT, minItems=1, maxItems=STEPS_MAX),
            "steps": array_of(ref("WrittenStep"), minItems=1, maxItems=STEPS_MAX),
            "execution_strategy": STRATEGY,
        },
        optional=["agents", "steps"],
        description="A basket: its agents in their order, or a graph of steps.",
    )
    | {"oneOf": [{"required": ["agents"]}, {"required": ["steps"]}]},
    "Baskets": object_of({"baskets": array_of(ref("Basket")), "count": COUNT}),
    "BasketCreated": object_of(
        {"success": {"const": True}, "message": STRING, "basket": ref("Basket"), "warnings": WARNINGS},
        optional=["warnings"],
    ),
    "BasketDeleted": object_of(
        {
            "success": {"const": True},
            "message": STRING,
            "cleanup_summary": object_of({"baskets_deleted": {"const": 1}, "executions_deleted": {"const": 0}}),
        },
        description="The basket is gone; its executions stay readable.",
    ),
    "Health": object_of(
        {
            "status": enum_of("healthy", "degraded", "unhealthy"),
            "services": object_of(dict.fromkeys(("mongodb", "redis", "workers"), enum_of("connected", "disconnected"))),
            "version": STRING,
        }
    ),
    "Ready": object_of({"status": {"const": "ready"}}),
}

_LOG_LINES_RESPONSES: Final = {200: ResponseSpec("The lines, oldest first.", ref("LogLines"), ("Cache-Private", "Vary"))}
_DOCUMENT_HEADERS: Final = ("Document-ETag", "Cache-Asked")
_PAGE_HEADERS: Final = ("Content-Security-Policy", "Cross-Origin-Opener-Policy", "Referrer-Policy", "Cache-Asked")
_LOG_LINES_PARAMETERS: Final = ("Level", "OfExecution", "Since", "Limit")


CATALOGUE_OPERATIONS: Final[dict[str, Operation]] = {
    "GET /agents": Operation(ok_response("The specs by name.", array_of(ref("AgentSpec"))), ("Domain",)),
    "GET /agents/{name}": Operation(
        ok_response("The spec.", ref("AgentSpec")), ("AgentName",), (errors.NotFound, errors.AgentNotFound)
    ),
    "GET /baskets": Operation(ok_response("The baskets by name.", ref("Baskets")), (), STORE_ERRORS),
    "GET /baskets/{name}": Operation(
        ok_response("The basket.", ref("Basket")),
        ("BasketName",),
        (errors.NotFound, errors.BasketNotFound, *STORE_ERRORS),
    ),
    "POST /create-basket": Operation(
        {201: ResponseSpec("The basket is there.", ref("BasketCreated"))},
        (),
        (
            *BODY_ERRORS,
            errors.UnknownAgent,
            errors.BasketExists,
            errors.Unavailable,
            errors.OutcomeUnknown,
        ),
        body="NewBasket",
    ),
    "DELETE /baskets/{name}": Operation(
        ok_response("The basket is gone.", ref("BasketDeleted")),
        ("BasketName",),
        (errors.NotFound, errors.BasketNotFound, errors.Unavailable, errors.OutcomeUnknown),
    ),
    "GET /logs": Operation(_LOG_LINES_RESPONSES, ("Agent", *_LOG_LINES_PARAMETERS), (errors.CursorInvalid, *STORE_ERRORS)),
    "GET /agent-logs/{name}": Operation(
        _LOG_LINES_RESPONSES,
        ("AgentName", *_LOG_LINES_PARAMETERS),
        (errors.CursorInvalid, errors.NotFound, errors.AgentNotFound, *STORE_ERRORS),
    ),
    "GET /health": Operation({200: ResponseSpec("How the services are.", ref("Health"), ("Cache-None",))}),
    "GET /ready": Operation({200: ResponseSpec("Runs are accepted.", ref("Ready"), ("Cache-None",))}, (), STORE_ERRORS),
    "GET /metrics": Operation({200: ResponseSpec("Prometheus text.", STRING, (), "text/plain")}, is_unversioned=True),
    "GET /openapi.json": Operation(
        {
            200: ResponseSpec(
                "This document.", {"type": "object", "required": ["openapi", "paths"]}, _DOCUMENT_HEADERS
            ),
            304: ResponseSpec("It has not changed.", None, _DOCUMENT_HEADERS),
        },
        ("IfNoneMatch",),
        is_unversioned=True,
    ),
    "GET /docs": Operation(
        {200: ResponseSpec("A page to read this document and to try it.", STRING, _PAGE_HEADERS, "text/html")},
        is_unversioned=True,
    ),
    "GET /docs/{file}": Operation(
        {200: ResponseSpec("A script, a style or an icon of that page.", STRING, ("Cache-Hour",), "*/*")},
        ("DocsFile",),
        (errors.NotFound,),
        is_unversioned=True,
    ),
    "GET /": Operation({302: ResponseSpec("To /docs.", None, ("Docs-Location", "Cache-Asked"))}, is_unversioned=True),
}
