"""What is told beside runs: agents, baskets, log lines, how Bucket is, and the contract itself; forms and routes."""

from __future__ import annotations

from typing import Final

from api.openapi.json_schema import BOOLEAN, COUNT, STRING, Json, a_list, exactly, named, one_of, told
from api.openapi.operation_types import BODY, STORED, Operation, Reply, plain
from api.openapi.response_schemas import AGENT, BASKET, OBJECT, STRATEGY, WARNINGS
from shared import errors
from shared.domain.definitions.agent_spec import QUEUES, RETRY_POLICIES, TIMEOUT_MAX_S
from shared.domain.definitions.basket import STEPS_MAX

FORMS: Final[dict[str, Json]] = {
    "AgentSpec": exactly(
        {
            "name": AGENT,
            "version": STRING,
            "description": STRING,
            "domains": a_list(STRING, minItems=1),
            "entry": STRING,
            "capabilities": exactly({"chainable": BOOLEAN, "memory_access": BOOLEAN, "idempotent": BOOLEAN}),
            "input_schema": told(OBJECT, "JSON Schema 2020-12"),
            "output_schema": told(OBJECT, "JSON Schema 2020-12"),
            "sample_input": OBJECT,
            "sample_output": OBJECT,
            "timeout_s": {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MAX_S},
            "retry": {"anyOf": [one_of(*RETRY_POLICIES), OBJECT]},
            "queue": one_of(*QUEUES),
        },
        told="An agent as its author describes it.",
    ),
    "Basket": exactly(
        {
            "name": BASKET,
            "basket_name": told(BASKET, "the same as name"),
            "description": STRING,
            "agents": a_list(AGENT, minItems=1, maxItems=STEPS_MAX),
            "steps": a_list(named("WrittenStep"), minItems=1, maxItems=STEPS_MAX),
            "execution_strategy": STRATEGY,
        },
        optional=["agents", "steps"],
        told="A basket: its agents in their order, or a graph of steps.",
    )
    | {"oneOf": [{"required": ["agents"]}, {"required": ["steps"]}]},
    "Baskets": exactly({"baskets": a_list(named("Basket")), "count": COUNT}),
    "BasketCreated": exactly(
        {"success": {"const": True}, "message": STRING, "basket": named("Basket"), "warnings": WARNINGS},
        optional=["warnings"],
    ),
    "BasketDeleted": exactly(
        {
            "success": {"const": True},
            "message": STRING,
            "cleanup_summary": exactly({"baskets_deleted": {"const": 1}, "executions_deleted": {"const": 0}}),
        },
        told="The basket is gone; its executions stay readable.",
    ),
    "Health": exactly(
        {
            "status": one_of("healthy", "degraded", "unhealthy"),
            "services": exactly(dict.fromkeys(("mongodb", "redis", "workers"), one_of("connected", "disconnected"))),
            "version": STRING,
        }
    ),
    "Ready": exactly({"status": {"const": "ready"}}),
}

_LINES: Final = {200: Reply("The lines, oldest first.", named("LogLines"), ("Cache-Private", "Vary"))}
_DOCUMENT_HEADERS: Final = ("Document-ETag", "Cache-Asked")
_PAGE_HEADERS: Final = ("Content-Security-Policy", "Cross-Origin-Opener-Policy", "Referrer-Policy", "Cache-Asked")
_LINES_PARAMETERS: Final = ("Level", "OfExecution", "Since", "Limit")


CATALOGUE: Final[dict[str, Operation]] = {
    "GET /agents": Operation(plain("The specs by name.", a_list(named("AgentSpec"))), ("Domain",)),
    "GET /agents/{name}": Operation(
        plain("The spec.", named("AgentSpec")), ("AgentName",), (errors.NotFound, errors.AgentNotFound)
    ),
    "GET /baskets": Operation(plain("The baskets by name.", named("Baskets")), (), STORED),
    "GET /baskets/{name}": Operation(
        plain("The basket.", named("Basket")), ("BasketName",), (errors.NotFound, errors.BasketNotFound, *STORED)
    ),
    "POST /create-basket": Operation(
        {201: Reply("The basket is there.", named("BasketCreated"))},
        (),
        (
            *BODY,
            errors.UnknownAgent,
            errors.BasketExists,
            errors.Unavailable,
            errors.OutcomeUnknown,
        ),
        body="NewBasket",
    ),
    "DELETE /baskets/{name}": Operation(
        plain("The basket is gone.", named("BasketDeleted")),
        ("BasketName",),
        (errors.NotFound, errors.BasketNotFound, errors.Unavailable, errors.OutcomeUnknown),
    ),
    "GET /logs": Operation(_LINES, ("Agent", *_LINES_PARAMETERS), (errors.CursorInvalid, *STORED)),
    "GET /agent-logs/{name}": Operation(
        _LINES,
        ("AgentName", *_LINES_PARAMETERS),
        (errors.CursorInvalid, errors.NotFound, errors.AgentNotFound, *STORED),
    ),
    "GET /health": Operation({200: Reply("How the services are.", named("Health"), ("Cache-None",))}),
    "GET /ready": Operation({200: Reply("Runs are accepted.", named("Ready"), ("Cache-None",))}, (), STORED),
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
