"""Builds the run of a submission, and refuses every error that can be found before the run is stored.

A refusal is returned and not raised: if a run already holds the submission's idempotency key, that run is the reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from api.catalogue.availability import AgentAvailability
from api.catalogue.basket_cache import BasketCache
from api.catalogue.basket_definition import parse_basket, step_from_spec, validate_definition
from api.http.body_key_checks import with_warnings
from api.http.strict_json import FAULTS_MAX
from api.submission.admission import Admission
from api.submission.schemas import METADATA_MAX_BYTES
from api.submission.submission import Submission
from shared.bootstrap import Services
from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.definitions.basket import SEQUENTIAL, Basket
from shared.domain.definitions.marked_flow import agents_with_marks, marked_in_run_input
from shared.domain.definitions.step_input import StepInputError, input_of
from shared.domain.definitions.unavailability import NO_KEYS_REASON, agent_unavailable
from shared.domain.execution import INLINE, OWN_BASKET, Execution
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.simulator_script import SIMULATE_AGENT_NAME, delay_scripted_steps
from shared.domain.lifecycle.transitions import start
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError, ValidationFailed
from shared.ids import new_execution_id
from shared.live.redis_monitor import RedisMonitor
from shared.sealing import Sealer, input_place

_INPUT_CHECKED_MAX_BYTES: Final = 7 * 1024 * 1024
"""Limit of the input bytes that are checked at the submit if many steps begin the run; workers check each step too."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be stored, and the step outputs that it begins with (only a retry has some)."""

    decision: Decision
    outputs: Mapping[str, bytes] = field(default_factory=dict)


class RunBuilder:
    """Builds the runs of baskets and of single agents."""

    def __init__(
        self,
        services: Services,
        baskets: BasketCache,
        admission: Admission,
        availability: AgentAvailability,
        monitor: RedisMonitor,
    ) -> None:
        self._services = services
        self._catalogue = services.catalogue
        self._baskets = baskets
        self._admission = admission
        self._availability = availability
        self._monitor = monitor

    def basket_run(self, submission: Submission, already_queued: int = 0) -> NewRun | BucketError:
        """Return the run of a basket, named or written inline, or the error that refuses it.

        ``already_queued`` is the number of runs of the same request that were built before and are not stored yet.
        """
        try:
            self._admission.check(already_queued)
            name = submission.body.get("basket_name")
            if name is None:
                return self._new_run(self._inline_basket(submission.body), submission, kind=INLINE)
            basket = self._baskets.get(submission.integrator, name)
            return self._new_run(basket.graph, submission, kind="basket" if basket.is_shared else OWN_BASKET)
        except BucketError as error:
            return with_warnings(error, submission.warnings)

    def agent_run(self, submission: Submission) -> NewRun | BucketError:
        """Return the run of one agent as a basket of one step, or the error that refuses it."""
        try:
            self._admission.check()
            spec = self._catalogue.agent(submission.body["agent_name"])
            basket = Basket(spec.name, SEQUENTIAL, (step_from_spec(spec, spec.name),))
            return self._new_run(basket, submission, kind="agent")
        except BucketError as error:
            return with_warnings(error, submission.warnings)

    def _new_run(self, basket: Basket, submission: Submission, *, kind: str) -> NewRun:
        # Most runs need none of the agents that the workers report; a wrong spec is found where the basket is parsed.
        needs_reported = not self._monitor.last.unavailable.keys().isdisjoint(basket.agents)
        if needs_reported:
            self._availability.check_listed(*basket.agents)
        run = build_execution(basket, submission, self._catalogue, kind=kind)
        run = protect_input(run, self._catalogue, self._services.sealer)
        if needs_reported:
            self._availability.check(basket.agents)  # last: no later time would mend another fault
        return NewRun(start(run, run.created_at, self._services.timings))

    def _inline_basket(self, body: Mapping[str, Any]) -> Basket:
        definition = {"name": INLINE} | validate_definition(body["config"], "/config")
        return parse_basket(definition, self._catalogue, "/config")


def build_execution(basket: Basket, submission: Submission, catalogue: AgentCatalogue, *, kind: str) -> Execution:
    """Return the execution of a submission; raises ValidationFailed if its input does not match the input schema."""
    body, now = submission.body, submission.received_at
    run_input, source = body.get("input_data"), "request"
    if run_input is None:
        run_input, source = dict(catalogue.agent(basket.steps[0].agent).sample_input), "sample"
    _check_input(basket, run_input, catalogue)
    metadata = orjson.dumps(body["metadata"])
    if len(metadata) > METADATA_MAX_BYTES:
        fault = {"pointer": "/metadata", "message": f"takes {len(metadata)} bytes; at most {METADATA_MAX_BYTES}"}
        raise ValidationFailed(f"metadata {fault['message']}", details=[fault])
    run_after = body.get("run_after")
    if body.get("run_after_s") is not None:
        run_after = now + timedelta(seconds=body["run_after_s"])
    earliest_start = max(run_after or now, now)
    execution = Execution(
        id=new_execution_id(now),
        integrator=submission.integrator,
        basket=basket,
        status=ExecutionStatus.QUEUED,
        steps={},
        created_at=now,
        request_id=submission.request_id,
        input=orjson.dumps(run_input),
        input_source=source,
        kind=kind,
        stateful=bool(body.get("stateful", False)),
        tags=tuple(body["tags"]),
        metadata=metadata,
        reference=body.get("reference"),
        traceparent=submission.traceparent,
        idempotency=submission.idempotency,
        run_after=_later(run_after, 0),
        start_deadline=_later(earliest_start, body.get("start_deadline_s")),
        deadline=_later(earliest_start, body.get("deadline_s")),
        audit=submission.audit,
    )
    return delay_scripted_steps(execution) if SIMULATE_AGENT_NAME in basket.agents else execution


def protect_input(run: Execution, catalogue: AgentCatalogue, sealer: Sealer) -> Execution:
    """Return ``run`` with its input sealed if an agent that gets it marks a field of it, or if all payloads are sealed.

    Raises AgentUnavailable for agents that mark fields if there is no key to seal with.
    """
    marking = agents_with_marks(run.basket, catalogue) if catalogue.has_marks else []
    if marking and not sealer.has_keys:
        raise agent_unavailable(dict.fromkeys(marking, NO_KEYS_REASON))
    has_marked = marking and marked_in_run_input(run.basket, orjson.loads(run.input), catalogue)
    if not (has_marked or sealer.seals_payloads):
        return run
    return replace(run, input=sealer.seal(run.input, input_place(run.id)))


def _later(start: datetime | None, seconds: float | None) -> datetime | None:
    """Return the time ``seconds`` after ``start``, truncated to milliseconds; None if one of them is None."""
    if start is None or seconds is None:
        return None
    at = (start + timedelta(seconds=seconds)).astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1_000 * 1_000)


def _check_input(basket: Basket, run_input: Mapping[str, Any], catalogue: AgentCatalogue) -> None:
    """Raise ValidationFailed if the input does not match the schema of an agent that the run begins with."""
    details: list[dict[str, str]] = []
    checked = set()  # two hundred steps may have the same agent and the same input
    bytes_left = _INPUT_CHECKED_MAX_BYTES
    for step in basket.steps:
        if step.needs or (key := (step.agent, orjson.dumps(step.input))) in checked:
            continue
        if len(details) >= FAULTS_MAX or bytes_left <= 0:
            break
        checked.add(key)
        try:
            step_input = input_of(basket, step.id, run_input, {})
            if len(checked) > 1:  # most runs begin with one step, whose input needs no limit
                bytes_left -= len(orjson.dumps(step_input))
            faults = catalogue.find_input_faults(step.agent, step_input)
        except StepInputError as error:
            details.append({"pointer": "/input_data", "message": f"step {step.id}: {error}"})
            continue
        pointer_prefix = "/input_data" if step.input is None else f"step {step.id}: "
        details += [{"pointer": f"{pointer_prefix}{fault.pointer}", "message": fault.message} for fault in faults]
    if details:
        summary = "; ".join(f"{detail['pointer']}: {detail['message']}" for detail in details[:3])
        agents = ", ".join(dict.fromkeys(step.agent for step in basket.steps if not step.needs))
        raise ValidationFailed(
            f"the input breaks the input_schema of {agents}: {summary}", details=details[:FAULTS_MAX]
        )
