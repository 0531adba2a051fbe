"""Turns a basket as it is written into the graph of steps that an execution starts with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from api.catalogue.schemas import DEFINITION_MAX_BYTES, STEP_KEYS
from api.http.body_policy import unknown_key_warnings
from api.http.strict_json import FAULTS_MAX
from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.definitions.agent_spec import AgentSpec
from shared.domain.definitions.basket import (
    GRAPH,
    PARALLEL,
    SEQUENTIAL,
    Basket,
    BasketStep,
    find_graph_faults,
    make_step_ids,
)
from shared.domain.definitions.retry_policy import parse_retry_policy
from shared.errors import AgentNotFound, SpecError, UnknownAgent, ValidationFailed

STORED_FIELDS = ("name", "description", "agents", "steps", "execution_strategy")


def parse_basket(definition: Mapping[str, Any], catalogue: AgentCatalogue, where: str = "") -> Basket:
    """Answer the basket that ``definition`` writes, with its agents' queues, timeouts and retries.

    ``where`` is the pointer to it. Raises AgentNotFound where it names an agent that is not there, ValidationFailed
    where its graph cannot run.
    """
    if "steps" in definition:
        strategy, steps = GRAPH, _parse_steps(definition["steps"], catalogue, f"{where}/steps")
    else:
        strategy = definition["execution_strategy"]
        steps = tuple(_steps_from_agents(definition["agents"], strategy, catalogue))
    return Basket(definition["name"], strategy, steps, definition.get("description", ""))


def step_from_spec(spec: AgentSpec, step_id: str, needs: tuple[str, ...] = ()) -> BasketStep:
    """Answer the step that an agent's spec makes, with the queue, timeout and retries that it asks for."""
    return BasketStep(step_id, spec.name, needs, spec.queue, spec.timeout_s, parse_retry_policy(spec.retry))


def validate_definition(definition: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Answer what of ``definition`` is kept; raises ValidationFailed where it names no steps, or twice, or is large."""
    has = [field for field in ("agents", "steps") if field in definition]
    strategy = definition.get("execution_strategy")
    if len(has) != 1:
        message = "name the agents to run, in their order" if not has else "give agents or steps, not both"
        told = "agents is required, or steps" if not has else "a basket is a list of agents or a graph of steps"
        raise ValidationFailed(told, details=[{"pointer": f"{where}/agents", "message": message}])
    if has == ["steps"] and strategy not in {None, GRAPH}:
        fault = {"pointer": f"{where}/execution_strategy", "message": "goes with agents; leave it out beside steps"}
        raise ValidationFailed(f"execution_strategy {fault['message']}", details=[fault])
    if has == ["agents"] and strategy == GRAPH:
        fault = {"pointer": f"{where}/execution_strategy", "message": "graph goes with steps; this has agents"}
        raise ValidationFailed(f"execution_strategy {fault['message']}", details=[fault])
    kept = {field: definition[field] for field in STORED_FIELDS if field in definition}
    size = len(orjson.dumps(kept))
    if size > DEFINITION_MAX_BYTES:  # each run bears its basket, and so does each row of a list
        told = f"takes {size} bytes; at most {DEFINITION_MAX_BYTES}: pass data in input_data"
        raise ValidationFailed(f"the basket {told}", details=[{"pointer": where, "message": told}])
    return kept | {"execution_strategy": GRAPH if has == ["steps"] else strategy or SEQUENTIAL}


def definition_warnings(raw: Mapping[str, Any], known_keys: Sequence[str], within: str = "") -> list[str]:
    """Answer a warning for each key of a basket as it came, and of its steps, that means nothing; the first 20.

    ``known`` are the keys of the whole, ``within`` names it where it is a part of the body.
    """
    warnings = unknown_key_warnings(raw, known_keys, within=within)
    for index, step in enumerate(raw.get("steps") or ()):
        if len(warnings) >= FAULTS_MAX:
            break
        warnings += unknown_key_warnings(step, STEP_KEYS, within=f"{within}.steps[{index}]".removeprefix("."))
    return warnings[:FAULTS_MAX]


def check_agents_exist(definition: Mapping[str, Any], catalogue: AgentCatalogue) -> None:
    """Raise UnknownAgent, with the place of each, where a basket to be kept names an agent that is not there."""
    details = []
    for pointer, name in _named_agents(definition):
        try:
            catalogue.agent(name)
        except AgentNotFound as unknown:
            details.append({"pointer": pointer, "message": unknown.message})
    if details:
        raise UnknownAgent("; ".join(detail["message"] for detail in details[:3]), details=details[:20])


def _named_agents(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(definition.get("agents", ())):
        yield f"/agents/{index}", name
    for index, step in enumerate(definition.get("steps", ())):
        yield f"/steps/{index}/agent", step["agent"]


def _steps_from_agents(agents: Sequence[str], strategy: str, catalogue: AgentCatalogue) -> Iterator[BasketStep]:
    before: tuple[str, ...] = ()
    for step_id, name in zip(make_step_ids(agents), agents, strict=True):
        yield step_from_spec(catalogue.agent(name), step_id, () if strategy == PARALLEL else before)
        before = (step_id,)


def _parse_steps(steps: Sequence[Mapping[str, Any]], catalogue: AgentCatalogue, where: str) -> tuple[BasketStep, ...]:
    ids = _resolve_step_ids(steps)
    made = tuple(
        _parse_step(step, step_id, catalogue, f"{where}/{index}")
        for index, (step, step_id) in enumerate(zip(steps, ids, strict=True))
    )
    faults = find_graph_faults(made)
    if faults:
        details = [{"pointer": where + fault.pointer, "message": fault.message} for fault in faults[:20]]
        raise ValidationFailed("; ".join(fault.message for fault in faults[:3]), details=details)
    return made


def _resolve_step_ids(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each step's id: as it is written, else its agent's name, numbered where that is taken."""
    written = {step["id"] for step in steps if "id" in step}
    unnamed = iter(make_step_ids([step["agent"] for step in steps if "id" not in step], reserved_ids=written))
    return [step["id"] if "id" in step else next(unnamed) for step in steps]


def _parse_step(step: Mapping[str, Any], step_id: str, catalogue: AgentCatalogue, where: str) -> BasketStep:
    spec = catalogue.agent(step["agent"])
    try:
        policy = parse_retry_policy(step.get("retry", spec.retry))
    except SpecError as wrong:
        fault = {"pointer": f"{where}/retry", "message": wrong.message}
        raise ValidationFailed(wrong.message, details=[fault]) from wrong
    timeout_s = float(step.get("timeout_s", spec.timeout_s))
    needs = tuple(dict.fromkeys(step.get("needs", ())))
    return BasketStep(step_id, spec.name, needs, spec.queue, timeout_s, policy, step.get("input"))
