"""The forms of what is answered: each real reply satisfies its own, as strictly as the truth allows."""

from __future__ import annotations

from typing import Final

from api.actions.cancel import REASON_MAX
from api.hints.poll_schedule import LEAST_S, MOST_S
from api.http.query_params import LIMIT_MAX
from api.logs.routes import LEVELS
from api.openapi.json_schema import (
    BOOLEAN,
    COUNT,
    MOMENT,
    STRING,
    Json,
    a_list,
    a_map,
    exactly,
    named,
    one_of,
    or_null,
    told,
    whole,
)
from shared.domain.dead_letter import LetterKind
from shared.domain.definitions.basket import GRAPH, PARALLEL, SEQUENTIAL
from shared.domain.execution import CancelOutcome, ErrorKind
from shared.domain.status import ExecutionStatus, StepStatus
from shared.ids import AGENT_NAME, BASKET_NAME, EXECUTION_ID, REQUEST_ID
from shared.live.render import OUTPUT_SHOWN_BYTES

ID: Final[Json] = {"type": "string", "pattern": whole(EXECUTION_ID)}
AGENT: Final[Json] = {"type": "string", "pattern": whole(AGENT_NAME)}
BASKET: Final[Json] = {"type": "string", "pattern": whole(BASKET_NAME)}
# A step that is not named by hand takes its agent's name, numbered where that is taken: cut, so that it fits too.
STEP: Final[Json] = AGENT
REQUEST: Final[Json] = {"type": "string", "pattern": whole(REQUEST_ID)}
ADDRESS: Final[Json] = {"type": "string", "format": "uri-reference"}
OBJECT: Final[Json] = {"type": "object"}
REV: Final[Json] = {"type": "integer", "minimum": 1}
POLL_AFTER_MS: Final[Json] = {
    "type": "integer",
    "minimum": round(LEAST_S * 1_000),
    "maximum": round(MOST_S * 1_000),
}
LEVEL: Final[Json] = one_of(*LEVELS)
STRATEGY: Final[Json] = one_of(SEQUENTIAL, PARALLEL, GRAPH)
STATUS: Final[Json] = one_of(*ExecutionStatus)
WARNINGS: Final[Json] = told(a_list(STRING, minItems=1), "keys of the body that were ignored, and what was meant")
FINAL: Final = [str(status) for status in ExecutionStatus if status.is_final]
LIVE: Final = [str(status) for status in ExecutionStatus if not status.is_final]

_METADATA: Final = exactly(
    {"execution_id": ID, "basket_name": BASKET, "agents_executed": a_list(AGENT, minItems=1), "strategy": STRATEGY}
)
_OMITTED: Final = exactly(
    {"omitted": {"const": True}, "bytes": {"type": "integer", "minimum": OUTPUT_SHOWN_BYTES}, "url": ADDRESS},
    told="an output of over 256 KiB: where to get it",
)
_PROGRESS: Final = exactly(
    {
        "percent": {"type": "integer", "minimum": 0, "maximum": 100},
        "steps_total": {"type": "integer", "minimum": 1},
        "steps_completed": COUNT,
        "message": or_null(STRING),
    }
)
_STEP: Final = exactly(
    {"step": STEP, "agent": AGENT, "status": one_of(*StepStatus), "attempts": COUNT, "duration_ms": or_null(COUNT)}
)
_WAITING: Final = exactly(
    {
        "reason": one_of("queue", "schedule", "retry", "no_worker"),
        "position": or_null(COUNT),
        "eta_ms": or_null(COUNT),
    },
    told="why the run rests, and for how long by estimate",
)
_CANCEL: Final = exactly(
    {
        "requested_at": MOMENT,
        "reason": or_null({"type": "string", "maxLength": REASON_MAX}),
        "outcome": told(
            one_of(*CancelOutcome), "pending until the run is over; already_final: it ended as if nobody had asked"
        ),
    }
)

EXECUTION: Final[dict[str, Json]] = {
    "execution_id": ID,
    "basket_name": BASKET,
    "status": told(STATUS, "the last three are final: nothing leaves them"),
    "done": told(BOOLEAN, "true for a final status; then the execution never changes again"),
    "rev": told(REV, "moves with each change that a poll can see, and never back"),
    "progress": _PROGRESS,
    "current_step": or_null(exactly({"step": STEP, "agent": AGENT, "attempt": REV})),
    "steps": a_list(_STEP, minItems=1),
    "waiting_for": or_null(_WAITING),
    "result": told(
        {"type": ["object", "null"]},
        "of a sequential basket its last step's output; of others, by step, the outputs of those that no step needs",
    ),
    "error": or_null(named("RunError")),
    "outputs": a_map({"anyOf": [OBJECT, _OMITTED]}, STEP["pattern"]),
    "logs": a_list(named("LogLine"), maxItems=LIMIT_MAX),
    "count": told(COUNT, "how many lines are in logs"),
    "total": told(COUNT, "how many lines there are in all"),
    "next_after": told(COUNT, "pass it back as after to get the lines beyond"),
    "first_seq": told(REV, "the seq of the first line that is still kept"),
    "logs_dropped": COUNT,
    "gap": told(BOOLEAN, "with after: true where lines between it and the first one here are kept no longer"),
    "tags": a_list({"type": "string", "minLength": 1, "maxLength": 64}, maxItems=20),
    "metadata": told(OBJECT, "as it was submitted"),
    "input_source": one_of("request", "sample"),
    "retry_of": or_null(ID),
    "cancel": told(or_null(_CANCEL), "null where nobody asked it to stop before it was over"),
    "execution_metadata": _METADATA,
    "created_at": MOMENT,
    "queued_at": or_null(MOMENT),
    "started_at": or_null(MOMENT),
    "finished_at": or_null(MOMENT),
    "poll_after_ms": told(POLL_AFTER_MS, "when to poll again; a final execution has none"),
    "request_id": told(REQUEST, "of the submit, not of this poll"),
}
_SOMETIMES: Final = ("gap", "poll_after_ms")
ALWAYS_SHOWN: Final = ("execution_id", "status", "done", "rev")
FIELDS: Final = tuple(EXECUTION)


_NOTHING: Final[Json] = {"type": "null"}


def as_it_ends(*of_the_end: str) -> Json:
    """Answer what holds of a run that is not over, where ``of_the_end`` are null, and of one that is."""
    live = {"status": {"enum": LIVE}, "finished_at": _NOTHING} | dict.fromkeys(of_the_end, _NOTHING)
    final = {"status": {"enum": FINAL}, "finished_at": MOMENT, "poll_after_ms": False}
    return {
        "if": {"properties": {"done": {"const": True}}},
        "then": {"properties": final | dict.fromkeys(("waiting_for", "current_step"), _NOTHING)},
        "else": {"properties": live, "required": ["poll_after_ms"]},
    }


ACCEPTED: Final[dict[str, Json]] = {
    "execution_id": ID,
    "status": STATUS,
    "done": BOOLEAN,
    "rev": REV,
    "execution_metadata": _METADATA,
    "status_url": told(ADDRESS, "poll it until done is true; it keeps the prefix of the request"),
    "message": STRING,
    "created_at": MOMENT,
    "request_id": told(REQUEST, "of the request that made the run"),
    "retry_of": told(ID, "of a retry: what it is a retry of"),
    "poll_after_ms": told(POLL_AFTER_MS, "when to poll first; absent where a repeated submit finds it done"),
    "warnings": WARNINGS,
}

PROBLEM: Final[dict[str, Json]] = {
    "type": {"type": "string", "format": "uri-reference", "pattern": "^/problems/[a-z_]+$"},
    "title": STRING,
    "status": {"type": "integer", "minimum": 400, "maximum": 599},
    "detail": told(STRING, "a sentence that a person can act on"),
    "error_code": told(STRING, "decide by it: the list is closed"),
    "message": told(STRING, "the same as detail"),
    "details": told(a_list(named("Fault")), "each fault and where it is"),
    "timestamp": MOMENT,
    "request_id": told(REQUEST, "quote it when you ask for help"),
}
_RESYNC: Final = told(
    exactly({"since": STRING, "list": ADDRESS}),
    "of cursor_expired alone: read all pages of the list, then go on from since",
)

REPLIES: Final[dict[str, Json]] = {
    "Execution": exactly(EXECUTION, optional=_SOMETIMES, told="An execution as it stands.")
    | as_it_ends("result", "error"),
    "ExecutionPart": exactly(
        EXECUTION,
        optional=set(EXECUTION) - set(ALWAYS_SHOWN),
        told="The fields of an execution that were asked for, and the first four.",
    ),
    "ExecutionAtItsEnd": exactly(
        EXECUTION | {"warnings": WARNINGS},
        optional=(*_SOMETIMES, "warnings"),
        told="The answer to a submit that was held until the run was done.",
    )
    | as_it_ends("result", "error"),
    "ExecutionAskedToStop": exactly(
        EXECUTION
        | {
            "cancel": told(_CANCEL, "of a run that was over when it was first asked, told in this answer alone"),
            "warnings": WARNINGS,
        },
        optional=(*_SOMETIMES, "warnings"),
        told="The answer to a cancel: the execution as it stands by then.",
    )
    | as_it_ends("result", "error"),
    "Accepted": exactly(
        ACCEPTED,
        optional=["retry_of", "poll_after_ms", "warnings"],
        told="The answer to a submit: the execution is stored, and here is where to poll it.",
    ),
    "RunError": exactly(
        {
            "error_code": told({"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}, "docs/errors.md lists them"),
            "message": STRING,
            "kind": one_of(*ErrorKind),
            "agent": or_null(AGENT),
            "step": or_null(STEP),
            "attempt": or_null(COUNT),
            "retryable": told(BOOLEAN, "whether the same request may succeed another time"),
        },
        told="Why an execution failed or was cancelled.",
    ),
    "LogLine": exactly(
        {
            "seq": REV,
            "execution_id": ID,
            "agent_name": told(AGENT, "basket_manager for what the engine says itself"),
            "step": or_null(STRING),
            "event": STRING,
            "level": LEVEL,
            "message": STRING,
            "timestamp": MOMENT,
            "status": one_of("success", "running", "retrying", "released", "lost", "cancelling", "cancelled", "error"),
            "data": OBJECT,
        },
        told="One line of an execution's log; seq is dense within its execution.",
    ),
    "LogLines": exactly(
        {
            "logs": a_list(named("LogLine"), maxItems=LIMIT_MAX),
            "count": COUNT,
            "next_since": told(or_null(STRING), "pass it back as since; null where there is nothing yet"),
        },
        told="Log lines of all executions, oldest first.",
    ),
    "DeadLetter": exactly(
        {
            "id": {"type": "string", "pattern": f"^(?:{EXECUTION_ID.pattern}|message-[0-9a-f]{{24}})$"},
            "kind": one_of(*LetterKind),
            "execution_id": or_null(ID),
            "basket_name": or_null(BASKET),
            "error": or_null(named("RunError")),
            "finished_at": MOMENT,
            "retried_as": a_list(ID),
            "times": told(REV, "of a message: how often it came"),
        },
        optional=["times"],
        told="What failed for good: a run, or a message that nobody could read.",
    ),
    "DeadLetters": exactly(
        {
            "dead_letters": a_list(named("DeadLetter"), maxItems=LIMIT_MAX),
            "next_cursor": told(or_null(STRING), "pass it back as cursor; null on the last page"),
        }
    ),
    "Problem": exactly(
        PROBLEM | {"resync": _RESYNC},
        optional=["resync"],
        told="Every error, as RFC 9457 writes it.",
    ),
    "Fault": exactly(
        {
            "message": STRING,
            "pointer": told({"type": "string", "format": "json-pointer"}, "where in the body"),
            "parameter": told(STRING, "which parameter of the query"),
            "header": told(STRING, "which header"),
            "line": told(COUNT, "where the body stops to be JSON"),
            "column": COUNT,
        },
        optional=["pointer", "parameter", "header", "line", "column"],
    ),
}
