"""Turns a submit into a run to be stored: everything that can be known to be wrong is refused here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from api.http.strict_json import FAULTS_SHOWN
from api.schemas import METADATA_MAX_BYTES
from shared.catalogue.agent_catalogue import Catalogue
from shared.domain.definitions.basket import Basket
from shared.domain.definitions.step_input import NothingThere, given_to
from shared.domain.execution import PUBLIC, Execution, Idempotency
from shared.domain.lifecycle.simulation import as_scripted
from shared.domain.status import ExecutionStatus
from shared.errors import ValidationFailed
from shared.ids import new_execution_id

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
_CHECKED_MAX_BYTES: Final = 7 * 1024 * 1024
"""Of what many steps make of one input no more is checked at the submit; each step's own is, before it runs."""
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,400})?")


def run_of(
    basket: Basket,
    body: Mapping[str, Any],
    catalogue: Catalogue,
    *,
    now: datetime,
    kind: str,
    request_id: str,
    idempotency: Idempotency | None,
    traceparent: str | None,
) -> Execution:
    """Answer the run that a submit asks for; raises ValidationFailed where its input breaks a schema."""
    given = body["input_data"]
    source = "request"
    if not given:
        given, source = dict(catalogue.agent(basket.steps[0].agent).sample_input), "sample"
    _check_input(basket, given, catalogue)
    metadata = orjson.dumps(body["metadata"])
    if len(metadata) > METADATA_MAX_BYTES:
        fault = {"pointer": "/metadata", "message": f"takes {len(metadata)} bytes; at most {METADATA_MAX_BYTES}"}
        raise ValidationFailed(f"metadata {fault['message']}", details=[fault])
    moments = moments_of(body, now)
    blank = Execution(
        id=new_execution_id(now),
        integrator=PUBLIC,
        basket=basket,
        status=ExecutionStatus.QUEUED,
        steps={},
        created_at=now,
        request_id=request_id,
        input=orjson.dumps(given),
        input_source=source,
        kind=kind,
        stateful=bool(body.get("stateful", False)),
        tags=tuple(body["tags"]),
        metadata=metadata,
        traceparent=traceparent,
        idempotency=idempotency,
        run_after=moments.run_after,
        start_deadline=moments.start_deadline,
        deadline=moments.deadline,
    )
    return as_scripted(blank)


@dataclass(frozen=True, slots=True)
class Moments:
    """When a run may begin, and when it must have begun and ended."""

    run_after: datetime | None
    start_deadline: datetime | None
    deadline: datetime | None


def moments_of(body: Mapping[str, Any], now: datetime) -> Moments:
    """Answer when a run may begin and must have begun and ended; deadlines count from when it may begin."""
    run_after = body.get("run_after")
    if body.get("run_after_s") is not None:
        run_after = now + timedelta(seconds=body["run_after_s"])
    begins = max(run_after or now, now)

    def counted(field: str) -> datetime | None:
        return None if body.get(field) is None else _to_ms(begins + timedelta(seconds=body[field]))

    return Moments(None if run_after is None else _to_ms(run_after), counted("start_deadline_s"), counted("deadline_s"))


def _to_ms(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(microsecond=at.microsecond // 1_000 * 1_000)


def _check_input(basket: Basket, given: Mapping[str, Any], catalogue: Catalogue) -> None:
    """Raise ValidationFailed where the input breaks the schema of an agent that the run begins with."""
    details: list[dict[str, str]] = []
    checked = set()  # two hundred steps of one agent are given the same
    left = _CHECKED_MAX_BYTES
    for step in basket.steps:
        asked = step.agent, orjson.dumps(step.input)
        if step.needs or asked in checked:
            continue
        if len(details) >= FAULTS_SHOWN or left <= 0:
            break
        checked.add(asked)
        try:
            handed = given_to(basket, step.id, given, {})
            if len(checked) > 1:  # the one step that most runs begin with needs no measure
                left -= len(orjson.dumps(handed))
            faults = catalogue.input_faults(step.agent, handed)
        except NothingThere as missing:
            details.append({"pointer": "/input_data", "message": f"step {step.id}: {missing}"})
            continue
        at = "/input_data" if step.input is None else f"step {step.id}: "
        details += [{"pointer": f"{at}{fault.pointer}", "message": fault.message} for fault in faults]
    if details:
        told = "; ".join(f"{detail['pointer']}: {detail['message']}" for detail in details[:3])
        agents = ", ".join(dict.fromkeys(step.agent for step in basket.steps if not step.needs))
        raise ValidationFailed(f"the input breaks the input_schema of {agents}: {told}", details=details[:FAULTS_SHOWN])


def key_of(header: str | None) -> str | None:
    """Answer the Idempotency-Key of a request; raises ValidationFailed where it is none."""
    if header is None:
        return None
    if not is_key(header):
        fault = {"header": "Idempotency-Key", "message": "must be 1 to 255 printable ASCII characters"}
        raise ValidationFailed(f"Idempotency-Key {fault['message']}", details=[fault])
    return header


def is_key(text: str) -> bool:
    """True for what may be an Idempotency-Key."""
    return _KEY.fullmatch(text) is not None


def traceparent_of(header: str | None) -> str | None:
    """Answer a W3C traceparent where the header is one; a malformed one is nobody's fault here and is left out."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None
