"""Turns a submit into a run to be stored: everything that can be known to be wrong is refused here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from api.schemas import METADATA_MAX_BYTES
from shared.catalogue.specs import Catalogue
from shared.domain.basket import SEQUENTIAL, Basket, BasketStep, step_ids
from shared.domain.execution import PUBLIC, Execution, Idempotency
from shared.domain.retry import parse_policy
from shared.domain.spec import AgentSpec
from shared.domain.status import ExecutionStatus
from shared.errors import AgentNotFound, UnknownAgent, ValidationFailed
from shared.ids import new_execution_id

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,400})?")


def basket_of(definition: Mapping[str, Any], catalogue: Catalogue) -> Basket:
    """Answer the basket that ``definition`` writes; raises AgentNotFound where it names an agent that is not there."""
    agents: Sequence[str] = definition["agents"]
    steps: list[BasketStep] = []
    for step_id, name in zip(step_ids(agents), agents, strict=True):
        needs = (steps[-1].id,) if steps else ()
        steps.append(step_of(catalogue.agent(name), step_id, needs))
    return Basket(definition["name"], SEQUENTIAL, tuple(steps), definition.get("description", ""))


def step_of(spec: AgentSpec, step_id: str, needs: tuple[str, ...] = ()) -> BasketStep:
    """Answer the step that an agent's spec makes, with the queue, timeout and retries that it asks for."""
    return BasketStep(step_id, spec.name, needs, spec.queue, spec.timeout_s, parse_policy(spec.retry))


def check_agents_exist(definition: Mapping[str, Any], catalogue: Catalogue) -> None:
    """Raise UnknownAgent, with the place of each, where a basket to be kept names an agent that is not there."""
    details = []
    for index, name in enumerate(definition["agents"]):
        try:
            catalogue.agent(name)
        except AgentNotFound as unknown:
            details.append({"pointer": f"/agents/{index}", "message": unknown.message})
    if details:
        raise UnknownAgent("; ".join(detail["message"] for detail in details[:3]), details=details[:20])


def check_inline(config: Mapping[str, Any]) -> dict[str, Any]:
    """Answer an inline basket with a name; raises ValidationFailed where it has no agents."""
    if "agents" not in config:
        fault = {"pointer": "/config/agents", "message": "name the agents to run, in their order"}
        raise ValidationFailed("config must name its agents", details=[fault])
    return {"name": "inline", **config}


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
    first = basket.steps[0].agent
    given = body["input_data"]
    source = "request"
    if not given:
        given, source = dict(catalogue.agent(first).sample_input), "sample"
    faults = catalogue.input_faults(first, given)
    if faults:
        details = [{"pointer": f"/input_data{fault.pointer}", "message": fault.message} for fault in faults]
        told = "; ".join(f"{detail['pointer']}: {detail['message']}" for detail in details[:3])
        raise ValidationFailed(f"the input breaks the input_schema of {first}: {told}", details=details)
    metadata = orjson.dumps(body["metadata"])
    if len(metadata) > METADATA_MAX_BYTES:
        fault = {"pointer": "/metadata", "message": f"takes {len(metadata)} bytes; at most {METADATA_MAX_BYTES}"}
        raise ValidationFailed(f"metadata {fault['message']}", details=[fault])
    return Execution(
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
    )


def key_of(header: str | None) -> str | None:
    """Answer the Idempotency-Key of a request; raises ValidationFailed where it is none."""
    if header is None:
        return None
    if not _KEY.fullmatch(header):
        fault = {"header": "Idempotency-Key", "message": "must be 1 to 255 printable ASCII characters"}
        raise ValidationFailed(f"Idempotency-Key {fault['message']}", details=[fault])
    return header


def traceparent_of(header: str | None) -> str | None:
    """Answer a W3C traceparent where the header is one; a malformed one is nobody's fault here and is left out."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None
