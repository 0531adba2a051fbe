"""OpenAPI components: request parameters, response headers and links; each is in the document once, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from api.http.query_params import LIMIT_DEFAULT, LIMIT_MAX
from api.openapi.json_schema import (
    COUNT,
    MOMENT,
    POSITIVE,
    STRING,
    URI_REFERENCE,
    JsonObject,
    constant,
    enum_of,
    matching,
)
from api.openapi.response_schemas import AGENT, BASKET, EXECUTION_FIELDS, EXECUTION_ID, LEVEL, REQUEST_ID, STEP
from shared.domain.list_query import ListOrder
from shared.domain.status import ExecutionStatus
from shared.ids import CONSUMER_NAME_PATTERN, EXECUTION_ID_PATTERN


def _parameter(place: str, name: str, schema: JsonObject, description: str, **more: object) -> JsonObject:
    return {"in": place, "name": name, "description": description, "schema": schema, **more}


_path: Final = partial(_parameter, "path", required=True)
_query: Final = partial(_parameter, "query")
_header: Final = partial(_parameter, "header")

_FIELD: Final = "|".join(EXECUTION_FIELDS)
_STATUS: Final = "|".join(ExecutionStatus)
# HTTP trims white space at both ends, so a key neither begins nor ends with it.
_KEY: Final = matching("^[!-~](?:[ -~]{0,253}[!-~])?$") | {"minLength": 1, "maxLength": 255}

# All files that the page at /docs loads, with their media types.
DOCS_FILES: Final[Mapping[str, str]] = {
    "start.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

PARAMETERS: Final[dict[str, JsonObject]] = {
    "ExecutionId": _path(
        "execution_id", EXECUTION_ID, "the id that a submit answered; its first ten digits are the second"
    ),
    "Step": _path("step", STEP, "a step's id, as steps lists it"),
    "AgentName": _path("name", AGENT, "an agent's name, as GET /agents lists it"),
    "BasketName": _path("name", BASKET, "a basket's name, as GET /baskets lists it"),
    "LetterId": _path(
        "letter_id",
        matching(f"^(?:(?:{EXECUTION_ID_PATTERN.pattern})|message-[0-9a-f]{{24}})$"),
        "a dead letter's id, as GET /dead-letters lists it",
    ),
    "After": _query(
        "after", COUNT | {"maximum": 2**53}, "only log lines beyond this seq, oldest first; without it the latest"
    ),
    "Limit": _query("limit", POSITIVE | {"maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}, "how many rows at most"),
    "Fields": _query(
        "fields",
        matching(f"^ *(?:{_FIELD})(?: *, *(?:{_FIELD}))* *$"),
        "only these fields, with commas between; execution_id, status, done and rev are always there",
    ),
    "Wait": _query(
        "wait",
        matching(r"^[0-9]{1,18}(?:\.[0-9]{1,18})?$"),
        "seconds to hold the answer until there is news; more than 30 count as 30",
    ),
    "Until": _query("until", enum_of("done"), "held until the run is done, and not by any news before"),
    "Prefer": _header("Prefer", STRING, "wait=SECONDS (RFC 7240) holds the answer; a malformed one is ignored"),
    "Cursor": _query("cursor", STRING, "a next_cursor as it came; opaque, and a made-up one is 400"),
    "Since": _query("since", STRING, "a next_since as it came; opaque, and a made-up one is 400"),
    "ChangesSince": _query(
        "since", STRING, "a next_since as it came, or now; without it from the oldest change that is kept"
    ),
    "ConsumerName": _path("name", matching(CONSUMER_NAME_PATTERN), "a consumer's name, as PUT made it"),
    "DocsFile": _path("file", enum_of(*DOCS_FILES), "what the page loads"),
    "OfBasket": _query("basket", STRING, "only executions of this basket"),
    "OfTag": _query("tag", STRING, "only executions that bear this tag"),
    "Status": _query(
        "status",
        matching(f"^(?:{_STATUS})(?:,(?:{_STATUS}))*$"),
        "only executions in one of these statuses, with commas between",
    ),
    "OfRequest": _query("request_id", STRING, "only those that this request made"),
    "RetryOf": _query("retry_of", STRING, "only retries of this execution"),
    "CreatedAfter": _query("created_after", MOMENT, "only those made after this moment"),
    "CreatedBefore": _query("created_before", MOMENT, "only those made before this moment"),
    "UpdatedSince": _query("updated_since", MOMENT, "only those that have changed since this moment"),
    "Order": _query(
        "order",
        enum_of(*ListOrder) | {"default": str(ListOrder.NEWEST)},
        "which come first: the newest or oldest made, or (updated) what changed longest ago",
    ),
    "Domain": _query("domain", STRING, "only agents of this domain"),
    "Agent": _query("agent", STRING, "only lines of this agent"),
    "Level": _query("level", LEVEL, "only lines of this level"),
    "OfExecution": _query("execution_id", STRING, "only lines of this execution"),
    "IdempotencyKey": _header(
        "Idempotency-Key",
        _KEY,
        "the same key and the same body: the same execution, however often it is sent; kept for 24 hours",
    ),
    "IdempotencyKeyOfBatch": _header(
        "Idempotency-Key", _KEY, "the batch again under the same key makes no second run; another batch under it is 422"
    ),
    "Traceparent": _header(
        "traceparent", STRING, "a W3C trace context, stored with the run; a malformed one is left out"
    ),
    "IfNoneMatch": _header("If-None-Match", STRING, "an ETag as it came: 304 where nothing has changed"),
    "RequestId": _header(
        "X-Request-ID",
        STRING,
        "an id of the caller's for this request, 1 to 128 of A-Z a-z 0-9 . _ : -; of any other form one is made",
    ),
}


def _response_header(schema: JsonObject, description: str, *, required: bool = True) -> JsonObject:
    return {"description": description, "schema": schema} | ({"required": True} if required else {})


HEADERS: Final[dict[str, JsonObject]] = {
    "X-Request-ID": _response_header(REQUEST_ID, "the id of this request, the caller's own where it sent one"),
    "X-Content-Type-Options": _response_header(constant("nosniff"), "the content type is what it says"),
    "ETag": _response_header(
        matching(rf'^W/"{EXECUTION_ID_PATTERN.pattern}\.[1-9][0-9]*"$'), "the execution and its rev"
    ),
    "Location": _response_header(URI_REFERENCE, "where to poll"),
    "Retry-After": _response_header(
        POSITIVE, "poll_after_ms in whole seconds, rounded up; absent of what is over", required=False
    ),
    "Retry-After-Refused": _response_header(POSITIVE, "send the same request again after so many seconds"),
    "Idempotency-Replayed": _response_header(
        constant("true"), "this key had made the execution already, or all those of the batch", required=False
    ),
    "Preference-Applied": _response_header(matching(r"^wait=[0-9]+$"), "the wait that was granted", required=False),
    "Cache-Private": _response_header(
        constant("private, no-cache"), "kept by the caller alone, and asked for anew each time"
    ),
    "Cache-Asked": _response_header(constant("no-cache"), "kept, and asked for anew each time"),
    "Cache-Hour": _response_header(constant("public, max-age=3600"), "kept for an hour"),
    "Docs-Location": _response_header(constant("/docs"), "the page"),
    "Cache-None": _response_header(constant("no-store"), "never kept"),
    "Vary": _response_header(constant("Accept-Encoding"), "what the answer depends on"),
    "Document-ETag": _response_header(matching('^"[0-9a-f]{32}"$'), "the version of this document"),
    "Content-Security-Policy": _response_header(STRING, "the page may ask this origin and no other"),
    "Cross-Origin-Opener-Policy": _response_header(constant("same-origin"), "no other page holds this one"),
    "Referrer-Policy": _response_header(constant("no-referrer"), "no other page is told of this one"),
}
# Names in the table above that differ from the real header: one header with several descriptions.
HEADER_NAMES: Final = dict.fromkeys(("Cache-Private", "Cache-None", "Cache-Asked", "Cache-Hour"), "Cache-Control") | {
    "Retry-After-Refused": "Retry-After",
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
