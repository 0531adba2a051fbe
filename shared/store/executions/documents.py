"""Document mapping: encodes executions as MongoDB documents, decodes them, and builds the update between two of them.

JSON of callers and agents is stored as bytes: they are smaller than BSON trees, and no value from outside becomes a
field name or an operator. ``steps`` is a map by step id, whose pattern is safe as a field path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, TypeVar

import bson
import orjson
from bson import Timestamp
from bson.codec_options import CodecOptions
from bson.errors import BSONError

from shared.domain.definitions.basket import Basket, BasketStep
from shared.domain.definitions.retry_policy import RetryPolicy
from shared.domain.execution import (
    CancelRequest,
    ErrorKind,
    Execution,
    ExecutionRecord,
    Idempotency,
    LogEvent,
    LogPageQuery,
    RunError,
    Step,
)
from shared.domain.lifecycle.decision import Decision
from shared.domain.status import ExecutionStatus, StepStatus

T = TypeVar("T")
SCHEMA_VERSION: Final = 1
_TZ_AWARE: Final[CodecOptions[dict[str, Any]]] = CodecOptions(tz_aware=True)
_CACHED_BASKET_MAX_BYTES: Final = 64 * 1024
READER_PROJECTION: Final = {"checkpoints": 0}
DECISION_PROJECTION: Final = {"events": 0, "outputs": 0} | READER_PROJECTION
ROW_PROJECTION: Final = {"input": 0} | DECISION_PROJECTION
LIST_PROJECTION: Final = {"metadata": 0} | ROW_PROJECTION

_PLAIN_FIELDS: Final = (
    "integrator", "created_at", "request_id", "input", "input_source", "kind", "stateful", "metadata", "reference",
    "traceparent", "retry_of", "requeue_of", "effects_of", "run_after", "start_deadline", "deadline",
    "queued_at", "started_at", "finished_at", "erased_at", "version", "rev",
)  # fmt: skip
_EVENT_FIELDS: Final = tuple(field.name for field in fields(LogEvent))
_TIMES: Final = (
    "created_at", "run_after", "start_deadline", "deadline", "queued_at", "started_at", "finished_at", "erased_at",
)  # fmt: skip
_STEP_FIELDS: Final = tuple(field.name for field in fields(Step) if field.name not in {"id", "status", "error"})


def encode_execution(execution: Execution) -> dict[str, Any]:
    """Return the document of ``execution``, without its log lines and outputs."""
    document = {
        "_id": execution.id,
        "schema": SCHEMA_VERSION,
        "status": str(execution.status),
        "basket": orjson.dumps(execution.basket),
        "basket_name": execution.basket.name,
        "tags": list(execution.tags),
        "steps": {step.id: _encode_step(step) for step in execution.steps.values()},
        "due_by": execution.due_by,
        "error": _encode_error(execution.error),
        "idempotency": _encode_fields(execution.idempotency),
        "cancel": _encode_fields(execution.cancel),
        "dead_letter": execution.dead_letter or None,
    }
    document.update({name: getattr(execution, name) for name in _PLAIN_FIELDS})
    return _without_none(document)


def new_document(decision: Decision, outputs: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the document of a new run, with its audit event if there is one, until that is in the audit log."""
    document = _run_document(decision, outputs)
    if decision.execution.audit is not None:
        document["audit"] = dict(decision.execution.audit)
    return document


def _run_document(decision: Decision, outputs: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        **encode_execution(decision.execution),
        "events": [encode_event(event) for event in decision.events],
        "lines": len(decision.events),
        "outputs": outputs,
        "updated_at": decision.execution.created_at,
        "stored_at": Timestamp(0, 0),  # mongod fills it with its own time when the insert is applied
    }


def encode_new_document(decision: Decision, outputs: Mapping[str, bytes]) -> bytes:
    """Return the document of a new run as BSON, without its audit event."""
    return bson.encode(_run_document(decision, outputs))


def decode_new_document(encoded: bytes) -> ExecutionRecord:
    """Return what :func:`encode_new_document` has encoded; raises ValueError if ``encoded`` is not that."""
    try:
        return decode_record(bson.decode(encoded, _TZ_AWARE))
    except (BSONError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("this is not the document of a run") from error


def decode_execution(document: dict[str, Any]) -> Execution:
    """Return the execution that ``document`` holds."""
    steps = {step_id: _decode_step(step_id, fields_) for step_id, fields_ in document["steps"].items()}
    key, cancel = document.get("idempotency"), document.get("cancel")
    return Execution(
        id=document["_id"],
        basket=_decode_basket(document["basket"]),
        status=ExecutionStatus(document["status"]),
        steps=steps,
        tags=tuple(document["tags"]),
        error=decode_error(document.get("error")),
        idempotency=None if key is None else Idempotency(key["key"], key["fingerprint"]),
        cancel=None if cancel is None else CancelRequest(cancel["requested_at"], cancel.get("reason")),
        dead_letter=document.get("dead_letter", False),
        **{name: document[name] for name in _PLAIN_FIELDS if name in document},
    )


def decode_row(document: dict[str, Any]) -> Execution:
    """Return the execution that ``document`` holds, as :func:`decode_execution`, if it can be shown.

    Raises also what :func:`check_can_be_shown` does. Only what shows a run needs that: a decision must not fail by a
    field that it does not use.
    """
    execution = decode_execution(document)
    check_can_be_shown(execution)
    return execution


def check_can_be_shown(execution: Execution) -> None:
    """Raise TypeError if the id of an execution is no text, or a time of it is none."""
    if not isinstance(execution.id, str):
        raise TypeError("_id is no text")
    for name in _TIMES:
        value = getattr(execution, name)
        if value is not None and not isinstance(value, datetime):
            raise TypeError(f"{name} is no time")


def decode_record(document: dict[str, Any]) -> ExecutionRecord:
    """Return the execution that ``document`` holds, with its log lines and the outputs that are stored in it."""
    events = tuple(LogEvent(**element) for element in document.get("events", ()))
    return ExecutionRecord(decode_execution(document), events, document.get("lines", 0), document.get("outputs", {}))


def encode_event(event: LogEvent) -> dict[str, Any]:
    """Return the element of ``events`` that stores ``event``."""
    return _without_none({name: getattr(event, name) for name in _EVENT_FIELDS})


def diff_update(before: Execution, after: Execution) -> dict[str, dict[str, Any]]:
    """Build the ``$set`` and ``$unset`` that turn the document of ``before`` into that of ``after``.

    ``due_by`` is always written: heartbeats change the stored one without a version, so a value that is unchanged
    here may be a different one in the store. The checkpoint of a step that completes is removed; that of one that
    fails or is cancelled is kept for a retry of the run.
    """
    changes = _changed_fields(_RUN_NAMES, _RUN_VALUES, before, after)
    for step in after.steps.values():
        earlier = before.steps[step.id]
        if step is not earlier:
            step_changes = _changed_fields(_STEP_NAMES, _STEP_VALUES, earlier, step)
            changes |= {f"steps.{step.id}.{name}": value for name, value in step_changes.items()}
            if step.status is StepStatus.COMPLETED and step.claims:
                changes[f"checkpoints.{step.id}"] = None
    return set_or_unset({**changes, "due_by": after.due_by})


def set_or_unset(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Build the update that sets the fields that have a value and removes those that are None."""
    to_set = _without_none(values)
    to_unset = {name: "" for name, value in values.items() if value is None}
    return {operator: names for operator, names in (("$set", to_set), ("$unset", to_unset)) if names}


def log_page_stages(page: LogPageQuery) -> list[dict[str, Any]]:
    """Build the pipeline stages that reduce a document's log lines to those of ``page``.

    They add ``lines_kept``, the number of stored lines, and ``lines_from``, the position of the page's first line
    counted from the end of the log (the last line has 1).
    """
    line_count = {"$size": {"$ifNull": ["$events", []]}}
    if page.after is None:
        skipped: dict[str, Any] = {"$max": [0, {"$subtract": ["$lines_kept", int(page.limit)]}]}
    else:
        dropped = {"$subtract": ["$lines", "$lines_kept"]}
        already_read = {"$max": [0, {"$subtract": [int(page.after), dropped]}]}
        skipped = {"$min": [already_read, "$lines_kept"]}
    return [
        {"$set": {"lines_kept": line_count}},
        {"$set": {"lines_from": {"$subtract": ["$lines_kept", skipped]}}},
        {"$set": {"events": {"$slice": [{"$ifNull": ["$events", []]}, skipped, int(page.limit)]}}},
        {"$unset": list(READER_PROJECTION)},
    ]


def _changed_fields(
    names: tuple[str, ...], values: attrgetter[tuple[Any, ...]], before: object, after: object
) -> dict[str, Any]:
    """Return the fields that differ, with their new stored values; None for a field that must be removed."""
    triples = zip(names, values(before), values(after), strict=True)
    changed = {name: new for name, old, new in triples if old is not new and old != new}
    return {name: _ENCODERS[name](value) if name in _ENCODERS else value for name, value in changed.items()}


def _without_none(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


def _decode_basket(stored: bytes) -> Basket:
    # A basket with a megabyte of literals is twenty in memory, so large ones are not cached: there may be hundreds.
    return _cached_basket(stored) if len(stored) <= _CACHED_BASKET_MAX_BYTES else _parse_basket(stored)


def _parse_basket(stored: bytes) -> Basket:
    raw = orjson.loads(stored)
    return Basket(steps=tuple(_decode_basket_step(step) for step in raw.pop("steps")), **raw)


# The runs of one basket have the same bytes, and a basket never changes.
_cached_basket = lru_cache(maxsize=256)(_parse_basket)


def _decode_basket_step(raw: dict[str, Any]) -> BasketStep:
    return BasketStep(**{**raw, "needs": tuple(raw["needs"]), "retry": RetryPolicy(**raw.get("retry", {}))})


def _encode_step(step: Step) -> dict[str, Any]:
    document = {name: getattr(step, name) for name in _STEP_FIELDS}
    return _without_none({**document, "status": str(step.status), "error": _encode_error(step.error)})


def _decode_step(step_id: str, document: dict[str, Any]) -> Step:
    plain = {name: document[name] for name in _STEP_FIELDS if name in document}
    return Step(id=step_id, status=StepStatus(document["status"]), error=decode_error(document.get("error")), **plain)


def _encode_fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass that have a value; None for None."""
    if value is None:
        return None
    return _without_none({field.name: getattr(value, field.name) for field in fields(value)})


def _encode_error(error: RunError | None) -> dict[str, Any] | None:
    document = _encode_fields(error)
    return document and document | {"kind": str(document["kind"])}


def decode_error(document: dict[str, Any] | None) -> RunError | None:
    """Return the error that ``document`` holds; None for None."""
    return None if document is None else RunError(**{**document, "kind": ErrorKind(document["kind"])})


def stored_at_of(document: dict[str, Any]) -> datetime:
    """Return the second in which mongod stored ``document``, by mongod's own clock."""
    stored: datetime = document["stored_at"].as_datetime()
    return stored


_ENCODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "status": str,
    "tags": list,
    "error": _encode_error,
    "idempotency": _encode_fields,
    "cancel": _encode_fields,
    "dead_letter": lambda flag: flag or None,
}
# The fields that are compared of two executions and of two steps. Counters are never set by a decision, and the basket
# never changes.
_RUN_NAMES: Final = (*_ENCODERS, *(name for name in _PLAIN_FIELDS if name not in {"version", "rev"}))
_RUN_VALUES: Final[attrgetter[tuple[Any, ...]]] = attrgetter(*_RUN_NAMES)
_STEP_NAMES: Final = ("status", "error", *_STEP_FIELDS)
_STEP_VALUES: Final[attrgetter[tuple[Any, ...]]] = attrgetter(*_STEP_NAMES)
