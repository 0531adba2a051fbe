"""OpenAPI components: request parameters, response headers and links; each is in the document once, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from api.http.query_params import LIMIT_DEFAULT, LIMIT_MAX
from api.openapi.json_schema import STRING, JsonObject, anchored_pattern, enum_of
from api.openapi.response_schemas import (
    AGENT,
    BASKET,
    EXECUTION_FIELDS,
    EXECUTION_ID_SCHEMA,
    LEVEL,
    REQUEST_ID_SCHEMA,
    STEP,
)
from shared.domain.list_query import ListOrder
from shared.domain.status import ExecutionStatus
from shared.ids import CONSUMER_NAME_PATTERN, EXECUTION_ID_PATTERN


def _parameter(place: str, name: str, schema: JsonObject, description: str, **more: object) -> JsonObject:
    return {"in": place, "name": name, "description": description, "schema": schema, **more}


def _path_parameter(name: str, schema: JsonObject, description: str) -> JsonObject:
    return _parameter("path", name, schema, description, required=True)


_LIMIT: Final[JsonObject] = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
_FIELD: Final = "|".join(EXECUTION_FIELDS)
_STATUS: Final = "|".join(ExecutionStatus)
_TIMESTAMP: Final[JsonObject] = {"type": "string", "format": "date-time"}
# HTTP trims white space at both ends, so a key neither begins nor ends with it.
_KEY: Final[JsonObject] = {
    "type": "string",
    "pattern": "^[!-~](?:[ -~]{0,253}[!-~])?$",
    "minLength": 1,
    "maxLength": 255,
}

# All files that the page at /docs loads, with their media types.
DOCS_FILES: Final[Mapping[str, str]] = {
    "start.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

PARAMETERS: Final[dict[str, JsonObject]] = {
    "ExecutionId": _path_parameter(
        "execution_id", EXECUTION_ID_SCHEMA, "the id that a submit answered; its first ten digits are the second"
    ),
    "Step": _path_parameter("step", STEP, "a step's id, as steps lists it"),
    "AgentName": _path_parameter("name", AGENT, "an agent's name, as GET /agents lists it"),
    "BasketName": _path_parameter("name", BASKET, "a basket's name, as GET /baskets lists it"),
    "LetterId": _path_parameter(
        "letter_id",
        {"type": "string", "pattern": f"^(?:{anchored_pattern(EXECUTION_ID_PATTERN)[1:-1]}|message-[0-9a-f]{{24}})$"},
        "a dead letter's id, as GET /dead-letters lists it",
    ),
    "After": _parameter(
        "query",
        "after",
        {"type": "integer", "minimum": 0, "maximum": 2**53},
        "only log lines beyond this seq, oldest first; without it the latest",
    ),
    "Limit": _parameter("query", "limit", _LIMIT, "how many rows at most"),
    "Fields": _parameter(
        "query",
        "fields",
        {"type": "string", "pattern": f"^ *(?:{_FIELD})(?: *, *(?:{_FIELD}))* *$"},
        "only these fields, with commas between; execution_id, status, done and rev are always there",
    ),
    "Wait": _parameter(
        "query",
        "wait",
        {"type": "string", "pattern": r"^[0-9]{1,18}(?:\.[0-9]{1,18})?$"},
        "seconds to hold the answer until there is news; more than 30 count as 30",
    ),
    "Until": _parameter("query", "until", enum_of("done"), "held until the run is done, and not by any news before"),
    "Prefer": _parameter(
        "header", "Prefer", STRING, "wait=SECONDS (RFC 7240) holds the answer; a malformed one is ignored"
    ),
    "Cursor": _parameter("query", "cursor", STRING, "a next_cursor as it came; opaque, and a made-up one is 400"),
    "Since": _parameter("query", "since", STRING, "a next_since as it came; opaque, and a made-up one is 400"),
    "ChangesSince": _parameter(
        "query", "since", STRING, "a next_since as it came, or now; without it from the oldest change that is kept"
    ),
    "ConsumerName": _path_parameter(
        "name",
        {"type": "string", "pattern": anchored_pattern(CONSUMER_NAME_PATTERN)},
        "a consumer's name, as PUT made it",
    ),
    "DocsFile": _path_parameter("file", enum_of(*DOCS_FILES), "what the page loads"),
    "OfBasket": _parameter("query", "basket", STRING, "only executions of this basket"),
    "OfTag": _parameter("query", "tag", STRING, "only executions that bear this tag"),
    "Status": _parameter(
        "query",
        "status",
        {"type": "string", "pattern": f"^(?:{_STATUS})(?:,(?:{_STATUS}))*$"},
        "only executions in one of these statuses, with commas between",
    ),
    "OfRequest": _parameter("query", "request_id", STRING, "only those that this request made"),
    "RetryOf": _parameter("query", "retry_of", STRING, "only retries of this execution"),
    "CreatedAfter": _parameter("query", "created_after", _TIMESTAMP, "only those made after this moment"),
    "CreatedBefore": _parameter("query", "created_before", _TIMESTAMP, "only those made before this moment"),
    "UpdatedSince": _parameter("query", "updated_since", _TIMESTAMP, "only those that have changed since this moment"),
    "Order": _parameter(
        "query",
        "order",
        enum_of(*ListOrder) | {"default": str(ListOrder.NEWEST)},
        "which come first: the newest or oldest made, or (updated) what changed longest ago",
    ),
    "Domain": _parameter("query", "domain", STRING, "only agents of this domain"),
    "Agent": _parameter("query", "agent", STRING, "only lines of this agent"),
    "Level": _parameter("query", "level", LEVEL, "only lines of this level"),
    "OfExecution": _parameter("query", "execution_id", STRING, "only lines of this execution"),
    "IdempotencyKey": _parameter(
        "header",
        "Idempotency-Key",
        _KEY,
        "the same key and the same body: the same execution, however often it is sent; kept for 24 hours",
    ),
    "IdempotencyKeyOfBatch": _parameter(
        "header",
        "Idempotency-Key",
        _KEY,
        "the batch again under the same key makes no second run; another batch under it is 422",
    ),
    "Traceparent": _parameter(
        "header", "traceparent", STRING, "a W3C trace context, stored with the run; a malformed one is left out"
    ),
    "IfNoneMatch": _parameter("header", "If-None-Match", STRING, "an ETag as it came: 304 where nothing has changed"),
    "RequestId": _parameter(
        "header",
        "X-Request-ID",
        STRING,
        "an id of the caller's for this request, 1 to 128 of A-Z a-z 0-9 . _ : -; of any other form one is made",
    ),
}


def _header_object(schema: JsonObject, description: str, *, required: bool = True) -> JsonObject:
    return {"description": description, "schema": schema} | ({"required": True} if required else {})


_SECONDS: Final[JsonObject] = {"type": "integer", "minimum": 1}

HEADERS: Final[dict[str, JsonObject]] = {
    "X-Request-ID": _header_object(REQUEST_ID_SCHEMA, "the id of this request, the caller's own where it sent one"),
    "X-Content-Type-Options": _header_object(
        {"type": "string", "const": "nosniff"}, "the content type is what it says"
    ),
    "ETag": _header_object(
        {"type": "string", "pattern": rf'^W/"{EXECUTION_ID_PATTERN.pattern}\.[1-9][0-9]*"$'},
        "the execution and its rev",
    ),
    "Location": _header_object({"type": "string", "format": "uri-reference"}, "where to poll"),
    "Retry-After": _header_object(
        _SECONDS, "poll_after_ms in whole seconds, rounded up; absent of what is over", required=False
    ),
    "Retry-After-Refused": _header_object(_SECONDS, "send the same request again after so many seconds"),
    "Idempotency-Replayed": _header_object(
        {"type": "string", "const": "true"},
        "this key had made the execution already, or all those of the batch",
        required=False,
    ),
    "Preference-Applied": _header_object(
        {"type": "string", "pattern": r"^wait=[0-9]+$"}, "the wait that was granted", required=False
    ),
    "Cache-Private": _header_object(
        {"type": "string", "const": "private, no-cache"}, "kept by the caller alone, and asked for anew each time"
    ),
    "Cache-Asked": _header_object({"type": "string", "const": "no-cache"}, "kept, and asked for anew each time"),
    "Cache-Hour": _header_object({"type": "string", "const": "public, max-age=3600"}, "kept for an hour"),
    "Docs-Location": _header_object({"type": "string", "const": "/docs"}, "the page"),
    "Cache-None": _header_object({"type": "string", "const": "no-store"}, "never kept"),
    "Vary": _header_object({"type": "string", "const": "Accept-Encoding"}, "what the answer depends on"),
    "Document-ETag": _header_object({"type": "string", "pattern": '^"[0-9a-f]{32}"$'}, "the version of this document"),
    "Content-Security-Policy": _header_object(STRING, "the page may ask this origin and no other"),
    "Cross-Origin-Opener-Policy": _header_object(
        {"type": "string", "const": "same-origin"}, "no other page holds this one"
    ),
    "Referrer-Policy": _header_object({"type": "string", "const": "no-referrer"}, "no other page is told of this one"),
}
# Names in the table above that differ from the real header: one header with several descriptions.
HEADER_NAMES: Final = {
    "Retry-After-Refused": "Retry-After",
    "Cache-Private": "Cache-Control",
    "Cache-None": "Cache-Control",
    "Cache-Asked": "Cache-Control",
    "Cache-Hour": "Cache-Control",
    "Document-ETag": "ETag",
    "Docs-Location": "Location",
}
_ID: Final = {"execution_id": "$response.body#/execution_id"}
# What a caller can do next with the response.
LINKS: Final[dict[str, JsonObject]] = {
    "Poll": {"operationId": "get_execution_logs_execution_id", "parameters": _ID},
    "Cancel": {"operationId": "post_executions_execution_id_cancel", "parameters": _ID},
    "Retry": {"operationId": "post_executions_execution_id_retry", "parameters": _ID},
    "Requeue": {
        "operationId": "post_dead_letters_letter_id_requeue",
        "parameters": {"letter_id": "$response.body#/dead_letters/0/id"},
    },
}
COMMON_HEADERS: Final = ("X-Request-ID", "X-Content-Type-Options")
