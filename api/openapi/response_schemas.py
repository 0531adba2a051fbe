"""JSON schemas of response bodies, as strict as possible: executions and errors, and the parts that others share."""

from __future__ import annotations

from typing import Final

from api.actions.cancel import REASON_MAX
from api.hints.poll_schedule import POLL_DELAY_MAX_S, POLL_DELAY_MIN_S
from api.http.query_params import LIMIT_MAX
from api.logs.routes import LOG_LEVELS
from api.openapi.json_schema import (
    BOOLEAN,
    COUNT,
    POSITIVE,
    STRING,
    TIMESTAMP,
    URI_REFERENCE,
    JsonObject,
    array_of,
    described,
    enum_of,
    matching,
    nullable,
    object_of,
    ref,
)
from api.rows.row_fields import ALWAYS_INCLUDED
from api.submission.schemas import REFERENCE_CHARS_MAX, TAG_CHARS_MAX, TAGS_MAX
from shared.domain.definitions.agent_spec import TIMEOUT_MAX_S
from shared.domain.definitions.basket import GRAPH, PARALLEL, SEQUENTIAL
from shared.domain.execution import CancelOutcome, ErrorKind
from shared.domain.status import ExecutionStatus, StepStatus
from shared.ids import (
    AGENT_NAME_PATTERN,
    BASKET_NAME_PATTERN,
    EXECUTION_ID_PATTERN,
    REQUEST_ID_PATTERN,
    TRACEPARENT_PATTERN,
)
from shared.live.render import OUTPUT_INLINE_MAX_BYTES

EXECUTION_ID: Final = matching(EXECUTION_ID_PATTERN)
AGENT: Final = matching(AGENT_NAME_PATTERN)
BASKET: Final = matching(BASKET_NAME_PATTERN)
# A step without an id gets its agent's name, with a number if that is taken: cut, so that the pattern fits too.
STEP: Final = AGENT
REQUEST_ID: Final = matching(REQUEST_ID_PATTERN)
# Any members: said in words, because openapi-typescript takes an object without it for one that is always empty.
OBJECT: Final[JsonObject] = {"type": "object", "additionalProperties": True}
TIMEOUT_S: Final[JsonObject] = {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MAX_S}
POLL_AFTER_MS: Final[JsonObject] = {
    "type": "integer",
    "minimum": round(POLL_DELAY_MIN_S * 1_000),
    "maximum": round(POLL_DELAY_MAX_S * 1_000),
}
LEVEL: Final = enum_of(*LOG_LEVELS)
STRATEGY: Final = enum_of(SEQUENTIAL, PARALLEL, GRAPH)
STATUS: Final = enum_of(*ExecutionStatus)
WARNINGS: Final = described(
    array_of(STRING, minItems=1), "what was ignored in the body, or chosen because it is missing, such as sample input"
)
_METADATA: Final = object_of(
    execution_id=EXECUTION_ID, basket_name=BASKET, agents_executed=array_of(AGENT, minItems=1), strategy=STRATEGY
)
_OMITTED: Final = object_of(
    "an output of more than 256 KiB: the URL to get it from",
    omitted={"type": "boolean", "enum": [True]},
    bytes={"type": "integer", "minimum": OUTPUT_INLINE_MAX_BYTES},
    url=URI_REFERENCE,
)
_CANCEL: Final = object_of(
    requested_at=TIMESTAMP,
    reason=nullable({"type": "string", "maxLength": REASON_MAX}),
    outcome=described(
        enum_of(*CancelOutcome), "pending until the run is over; already_final: it ended as without the cancel"
    ),
)

EXECUTION_PROPERTIES: Final[dict[str, JsonObject]] = {
    "execution_id": EXECUTION_ID,
    "basket_name": BASKET,
    "status": described(STATUS, "the last three are final: they never change"),
    "done": described(BOOLEAN, "true for a final status; then the execution never changes again"),
    "rev": described(POSITIVE, "grows with each change that a poll can see"),
    "progress": object_of(
        percent=COUNT | {"maximum": 100}, steps_total=POSITIVE, steps_completed=COUNT, message=nullable(STRING)
    ),
    "current_step": nullable(object_of(step=STEP, agent=AGENT, attempt=POSITIVE)),
    "steps": array_of(
        object_of(step=STEP, agent=AGENT, status=enum_of(*StepStatus), attempts=COUNT, duration_ms=nullable(COUNT)),
        minItems=1,
    ),
    "waiting_for": nullable(
        object_of(
            "why no step runs, and an estimate of how long that lasts",
            reason=enum_of("queue", "schedule", "retry", "no_worker"),
            position=nullable(COUNT),
            eta_ms=nullable(COUNT),
        )
    ),
    "result": described(
        nullable(OBJECT),
        "of a sequential basket its last step's output; of others, by step, the outputs of those that no step needs",
    ),
    "error": nullable(ref("RunError")),
    "outputs": {
        "type": "object",
        "additionalProperties": {"anyOf": [OBJECT, _OMITTED]},
        "propertyNames": {"pattern": STEP["pattern"]},
    },
    "logs": array_of(ref("LogLine"), maxItems=LIMIT_MAX),
    "count": described(COUNT, "the number of lines in logs"),
    "total": described(COUNT, "the number of lines so far"),
    "next_after": described(COUNT, "pass it back as after to get the lines that follow"),
    "first_seq": described(POSITIVE, "the seq of the first line that is still kept"),
    "logs_dropped": COUNT,
    "gap": described(BOOLEAN, "only with after: true if lines between it and the first line here are no longer kept"),
    "tags": array_of({"type": "string", "minLength": 1, "maxLength": TAG_CHARS_MAX}, maxItems=TAGS_MAX),
    "metadata": described(OBJECT, "as it was submitted"),
    "reference": described(
        {"type": "string", "minLength": 1, "maxLength": REFERENCE_CHARS_MAX},
        "the caller's own number; absent if none was submitted",
    ),
    "expires_at": described(
        TIMESTAMP, "the run is kept at least until then, and deleted later once it is done; absent without retention"
    ),
    "erased_at": described(TIMESTAMP, "when the content was erased; absent if it was not"),
    "input_source": enum_of("request", "sample"),
    "retry_of": nullable(EXECUTION_ID),
    "cancel": described(nullable(_CANCEL), "null if no cancel was requested before it ended"),
    "execution_metadata": _METADATA,
    "created_at": TIMESTAMP,
    "queued_at": nullable(TIMESTAMP),
    "started_at": nullable(TIMESTAMP),
    "finished_at": nullable(TIMESTAMP),
    "poll_after_ms": described(POLL_AFTER_MS, "when to poll again; absent if the execution is done"),
    "request_id": described(REQUEST_ID, "of the submit, not of this poll"),
    "traceparent": described(
        matching(TRACEPARENT_PATTERN),
        "its trace (W3C trace context): the span of the submit if tracing is on, else what the submit brought; absent "
        "without one",
    ),
}
OPTIONAL_FIELDS: Final = ("poll_after_ms", "reference", "expires_at", "erased_at")
EXECUTION_FIELDS: Final = tuple(EXECUTION_PROPERTIES)


def _whole_execution(description: str, **more: JsonObject) -> JsonObject:
    properties = EXECUTION_PROPERTIES | more
    return object_of(description, (*OPTIONAL_FIELDS, "gap", "traceparent", "warnings"), **properties)


ACCEPTED_PROPERTIES: Final[dict[str, JsonObject]] = {
    "execution_id": EXECUTION_ID,
    "status": STATUS,
    "done": BOOLEAN,
    "rev": POSITIVE,
    "execution_metadata": _METADATA,
    "status_url": described(URI_REFERENCE, "poll it until done is true; it keeps the prefix of the request"),
    "message": STRING,
    "created_at": TIMESTAMP,
    "request_id": described(REQUEST_ID, "of the request that created the run"),
    "retry_of": described(EXECUTION_ID, "only of a retry: the execution that it retries"),
    "poll_after_ms": described(POLL_AFTER_MS, "when to poll first; absent if the run is done"),
    "warnings": WARNINGS,
}

PROBLEM_PROPERTIES: Final[dict[str, JsonObject]] = {
    "type": URI_REFERENCE | {"pattern": "^/problems/[a-z_]+$"},
    "title": STRING,
    "status": {"type": "integer", "minimum": 400, "maximum": 599},
    "detail": described(STRING, "a sentence that a person can act on"),
    "error_code": described(STRING, "decide by it; the list is closed"),
    "message": described(STRING, "the same as detail"),
    "details": described(array_of(ref("Fault")), "each fault, with its place in the request"),
    "timestamp": TIMESTAMP,
    "request_id": described(REQUEST_ID, "quote it if you need help"),
    "warnings": described(WARNINGS, "only of a 400: keys of the body that were ignored"),
    "used_by": described(EXECUTION_ID, "only of idempotency_key_reused: the run that holds the key"),
    "requeued_as": described(EXECUTION_ID, "only of already_requeued: the run that the letter was sent again as"),
}
_RESYNC: Final = described(
    object_of(since=STRING, list=URI_REFERENCE),
    "only with cursor_expired: read all pages of the list, then continue from since",
)

_ENDED: Final = described(ref("RunError"), "only with execution_failed and execution_cancelled: the error of the run")

RESPONSE_SCHEMAS: Final[dict[str, JsonObject]] = {
    "Execution": _whole_execution("An execution in its current state."),
    "ExecutionPart": object_of(
        "The fields of an execution that the query selects, and the four that are always included.",
        set(EXECUTION_PROPERTIES) - set(ALWAYS_INCLUDED),
        **EXECUTION_PROPERTIES,
    ),
    "FinishedExecution": _whole_execution(
        "The response to a submit that was held until the run was done.", warnings=WARNINGS
    ),
    "CancelResult": _whole_execution(
        "The response to a cancel: the execution in its current state.",
        cancel=described(_CANCEL, "never null; for a run that was already over, only this response has it"),
        warnings=WARNINGS,
    ),
    "Accepted": object_of(
        "The response to a submit: the execution is stored, and status_url is the URL to poll.",
        ("retry_of", "poll_after_ms", "warnings"),
        **ACCEPTED_PROPERTIES,
    ),
    "RunError": object_of(
        "Why an execution failed or was cancelled.",
        error_code=described(matching("^[a-z][a-z0-9_]*$"), "docs/errors.md lists them"),
        message=STRING,
        kind=enum_of(*ErrorKind),
        agent=nullable(AGENT),
        step=nullable(STEP),
        attempt=nullable(COUNT),
        retryable=described(BOOLEAN, "whether the same request may succeed if it is sent again"),
    ),
    "LogLine": object_of(
        "One line of an execution's log; seq counts the lines of its execution from 1.",
        seq=POSITIVE,
        execution_id=EXECUTION_ID,
        agent_name=described(AGENT, "basket_manager for lines of the engine itself"),
        step=nullable(STRING),
        event=STRING,
        level=LEVEL,
        message=STRING,
        timestamp=TIMESTAMP,
        status=enum_of("success", "running", "retrying", "released", "lost", "cancelling", "cancelled", "error"),
        data=OBJECT,
    ),
    "Problem": object_of(
        "Every error, in the format of RFC 9457.",
        ("resync", "error", "warnings", "used_by", "requeued_as"),
        **PROBLEM_PROPERTIES,
        resync=_RESYNC,
        error=_ENDED,
    ),
    "Fault": object_of(
        "",
        ("pointer", "parameter", "header", "line", "column"),
        message=STRING,
        pointer=described({"type": "string", "format": "json-pointer"}, "the place in the body"),
        parameter=described(STRING, "the query parameter"),
        header=described(STRING, "the header"),
        line=described(COUNT, "the line at which the body stops being valid JSON"),
        column=COUNT,
    ),
}
