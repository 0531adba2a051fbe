"""OpenAPI components: request parameters, response headers and links; each is in the document once, by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from api.audit.audited_routes import ACTIONS, SUBJECT_KINDS
from api.fleet.routes import SERIES_WINDOWS, SLOTS_PER_WORKER_MAX
from api.http.query_params import LIMIT_DEFAULT, LIMIT_MAX, SEQ_MAX
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
from api.openapi.trust_schemas import INTEGRATION_ID, KEY_ID
from api.rows.row_fields import ROW_FIELDS
from shared.domain.access.integration import IntegrationStatus
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.list_query import ListOrder
from shared.domain.status import ExecutionStatus
from shared.ids import CONSUMER_NAME_PATTERN, DEAD_LETTER_ID_PATTERN, EXECUTION_ID_PATTERN, INTEGRATOR_PATTERN


def _parameter(place: str, name: str, schema: JsonObject, description: str, **more: object) -> JsonObject:
    return {"in": place, "name": name, "description": description, "schema": schema, **more}


_path: Final = partial(_parameter, "path", required=True)
_query: Final = partial(_parameter, "query")
_header: Final = partial(_parameter, "header")

_FIELD: Final = "|".join(EXECUTION_FIELDS)
_ROW_FIELD: Final = "|".join(ROW_FIELDS)
_ENTITIES: Final = sorted({action.partition(".")[0] for action in ACTIONS})
_ACTION: Final = "|".join([*map(re.escape, ACTIONS), *(rf"{entity}\.\*" for entity in _ENTITIES)])
_ACTIONS: Final = f"^(?:{_ACTION})(?:,(?:{_ACTION}))*$"
_INTEGRATION_STATUS: Final = "|".join(IntegrationStatus)
_STATUS: Final = "|".join(ExecutionStatus)
# HTTP trims white space at both ends, so a key neither begins nor ends with it. A comma joins two headers.
_KEY: Final = matching("^[!-+\\--~](?:[ -+\\--~]{0,253}[!-+\\--~])?$") | {"minLength": 1, "maxLength": 255}

# All files that the page at /docs loads, with their media types.
DOCS_FILES: Final[Mapping[str, str]] = {
    "start.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

PARAMETERS: Final[dict[str, JsonObject]] = {
    "ExecutionId": _path(
        "execution_id",
        EXECUTION_ID,
        "the id that a submit returned; its first ten digits are the Unix time of its creation, in seconds",
    ),
    "Step": _path("step", STEP, "a step's id, as in the execution's steps"),
    "AgentName": _path("name", AGENT, "an agent's name, as GET /agents lists it"),
    "BasketName": _path("name", BASKET, "a basket's name, as GET /baskets lists it"),
    "IntegrationId": _path("integration_id", INTEGRATION_ID, "an integration's id, as GET /integrations lists it"),
    "IntegrationStatuses": _query(
        "status",
        matching(f"^ *(?:{_INTEGRATION_STATUS})(?: *, *(?:{_INTEGRATION_STATUS}))* *$"),
        "only integrations in these statuses, separated by commas",
    ),
    "KeyId": _path("key_id", KEY_ID, "a key's id, as GET /keys lists it"),
    "LetterId": _path(
        "letter_id",
        matching(DEAD_LETTER_ID_PATTERN),
        "a dead letter's id, as GET /dead-letters lists it",
    ),
    "After": _query(
        "after", COUNT | {"maximum": SEQ_MAX}, "only log lines beyond this seq, oldest first; without it the latest"
    ),
    "Limit": _query("limit", POSITIVE | {"maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}, "the maximum number of rows"),
    "Fields": _query(
        "fields",
        matching(f"^ *(?:{_FIELD})(?: *, *(?:{_FIELD}))* *$"),
        "only these fields, separated by commas; execution_id, status, done and rev are always included",
    ),
    "RowFields": _query(
        "fields",
        matching(f"^ *(?:{_ROW_FIELD})(?: *, *(?:{_ROW_FIELD}))* *$"),
        "only these fields of each row, separated by commas; execution_id, status, done and rev are always included",
    ),
    "Wait": _query(
        "wait",
        {"type": "number", "minimum": 0},
        "seconds to hold the response until there is a change; more than 30 count as 30",
    ),
    "Until": _query(
        "until", enum_of("done"), "hold the response until the run is done, and not only until the next change"
    ),
    "Prefer": _header("Prefer", STRING, "wait=SECONDS (RFC 7240) holds the response; ignored if malformed"),
    "Cursor": _query(
        "cursor", STRING, "a next_cursor exactly as it was returned: it is opaque, and an invalid one is 400"
    ),
    "Since": _query(
        "since", STRING, "a next_since exactly as it was returned: it is opaque, and an invalid one is 400"
    ),
    "AuditSince": _query(
        "since", STRING, "a next_since exactly as it was returned; without it the list starts at the oldest event"
    ),
    "AuditAction": _query(
        "action", matching(_ACTIONS), "only these actions, separated by commas; `execution.*` means all of an entity"
    ),
    "AuditSubject": _query(
        "subject",
        matching(f"^(?:{'|'.join(SUBJECT_KINDS)})"),
        "only what this subject did, such as `key:` and the id of a key",
    ),
    "ChangesSince": _query(
        "since",
        STRING,
        "a next_since exactly as it was returned, or now; without it the feed starts at the oldest change that is kept",
    ),
    "ConsumerName": _path("name", matching(CONSUMER_NAME_PATTERN), "the name of a consumer, which PUT creates"),
    "DocsFile": _path("file", enum_of(*DOCS_FILES), "a file that the page loads"),
    "ProblemCode": _path("code", matching("^[a-z_]+$"), "an error_code, of a request or of a run"),
    "OfIntegrator": _query(
        "integrator", matching(INTEGRATOR_PATTERN), "an admin's: only what belongs to it; else only one's own name"
    ),
    "Queue": _query("queue", enum_of(*QUEUE_NAMES), "only the figures of this queue"),
    "SlotsPerWorker": _query(
        "slots_per_worker",
        POSITIVE | {"maximum": SLOTS_PER_WORKER_MAX},
        "how many steps a worker runs at once, for wanted_workers; by default as many as those that are there",
    ),
    "Series": _query(
        "series",
        enum_of(*SERIES_WINDOWS),
        "also what happened in each minute of 1h, or quarter of an hour of 24h",
    ),
    "OfBasket": _query("basket", STRING, "only executions of this basket"),
    "LettersOfBasket": _query("basket", STRING, "only dead letters of this basket"),
    "OfAgent": _query("agent", STRING, "only dead letters of runs that this agent failed"),
    "RunsOfErrorCode": _query("error_code", STRING, "only executions that ended with this error code"),
    "OfErrorCode": _query("error_code", STRING, "only dead letters whose run failed with this code"),
    "OfTag": _query("tag", STRING, "only executions that have this tag"),
    "Status": _query(
        "status",
        matching(f"^(?:{_STATUS})(?:,(?:{_STATUS}))*$"),
        "only executions in one of these statuses, separated by commas",
    ),
    "OfRequest": _query("request_id", STRING, "only executions that the request with this id created"),
    "RetryOf": _query("retry_of", STRING, "only retries of this execution"),
    "OfReference": _query("reference", STRING, "only executions that were submitted with this reference"),
    "OfIdempotencyKey": _query(
        "idempotency_key",
        STRING,
        "only the execution of this Idempotency-Key, or those of a batch that had it",
    ),
    "CreatedAfter": _query("created_after", MOMENT, "only executions created after this time"),
    "CreatedBefore": _query("created_before", MOMENT, "only executions created before this time"),
    "UpdatedSince": _query("updated_since", MOMENT, "only executions that have changed since this time"),
    "Order": _query(
        "order",
        enum_of(*ListOrder) | {"default": str(ListOrder.NEWEST)},
        "which come first: the newest, the oldest, or (updated) the least recently changed",
    ),
    "Domain": _query("domain", STRING, "only agents of this domain"),
    "Agent": _query("agent", STRING, "only lines of this agent"),
    "Level": _query("level", LEVEL, "only lines of this level"),
    "OfExecution": _query("execution_id", STRING, "only lines of this execution"),
    "IdempotencyKey": _header(
        "Idempotency-Key",
        _KEY,
        "repeats with the same key and the same body return the same execution; a key is kept for 24 hours",
    ),
    "IdempotencyKeyOfBatch": _header(
        "Idempotency-Key",
        _KEY,
        "the same batch under the same key creates no second run; another batch under that key is 422",
    ),
    "Traceparent": _header("traceparent", STRING, "a W3C trace context, stored with the run; ignored if malformed"),
    "IfNoneMatch": _header("If-None-Match", STRING, "an ETag exactly as it was returned: 304 if nothing has changed"),
    "RequestId": _header(
        "X-Request-ID",
        STRING,
        "an id that the caller gives this request, 1 to 128 of A-Z a-z 0-9 . _ : -; if it is invalid, Bucket makes one",
    ),
}


def _response_header(schema: JsonObject, description: str, *, required: bool = True) -> JsonObject:
    return {"description": description, "schema": schema} | ({"required": True} if required else {})


HEADERS: Final[dict[str, JsonObject]] = {
    "X-Request-ID": _response_header(REQUEST_ID, "the id of this request, the caller's own if it sent a valid one"),
    "X-Content-Type-Options": _response_header(constant("nosniff"), "browsers must not guess another content type"),
    "ETag": _response_header(
        matching(rf'^W/"{EXECUTION_ID_PATTERN.pattern}\.[1-9][0-9]*"$'), "the execution_id and its rev"
    ),
    "Location": _response_header(URI_REFERENCE, "the URL to poll"),
    "Retry-After": _response_header(
        POSITIVE, "poll_after_ms in whole seconds, rounded up; absent if everything polled is done", required=False
    ),
    "Retry-After-Refused": _response_header(POSITIVE, "send the same request again after this many seconds"),
    "X-RateLimit-Limit": _response_header(
        POSITIVE, "where keys are required: how many such requests this caller may send at once", required=False
    ),
    "X-RateLimit-Remaining": _response_header(
        COUNT,
        "how many of them are left; BUCKET_RATELIMIT_HEADERS=draft adds RateLimit-Policy and RateLimit",
        required=False,
    ),
    "X-RateLimit-Reset": _response_header(COUNT, "in how many seconds all of them are there again", required=False),
    "Idempotency-Replayed": _response_header(
        constant("true"),
        "an earlier request with this key created the execution, or all executions of the batch",
        required=False,
    ),
    "Preference-Applied": _response_header(matching(r"^wait=[0-9]+$"), "the wait that was granted", required=False),
    "Cache-Private": _response_header(
        constant("private, no-cache"), "cached by the caller only, and revalidated each time"
    ),
    "Cache-Poll": _response_header(
        enum_of("no-store", "private, no-cache"),
        "never cached while the run is not done, because its hints change; then cached by the caller only",
    ),
    "Cache-Revalidate": _response_header(constant("no-cache"), "cached, and revalidated each time"),
    "Cache-Hour": _response_header(constant("public, max-age=3600"), "cached for an hour"),
    "Cache-None": _response_header(constant("no-store"), "never cached"),
    "Vary": _response_header(constant("Accept-Encoding, Authorization"), "the request headers that it depends on"),
    "Document-ETag": _response_header(matching('^"[0-9a-f]{32}"$'), "the version of this document"),
    "Content-Security-Policy": _response_header(STRING, "the page may connect to this origin only"),
    "Cross-Origin-Opener-Policy": _response_header(
        constant("same-origin"), "pages of other origins cannot refer to this page's window"
    ),
    "Referrer-Policy": _response_header(constant("no-referrer"), "no referrer is sent to other pages"),
}
# Names in the table above that differ from the real header: one header with several descriptions.
HEADER_NAMES: Final = dict.fromkeys(
    ("Cache-Private", "Cache-Poll", "Cache-None", "Cache-Revalidate", "Cache-Hour"), "Cache-Control"
) | {
    "Retry-After-Refused": "Retry-After",
    "Document-ETag": "ETag",
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
LIMIT_HEADERS: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
