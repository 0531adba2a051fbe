"""Basket definitions: validates the JSON of a basket and parses it to the graph of steps that an execution runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from api.catalogue.schemas import DEFINITION_MAX_BYTES, STEP_KEYS
from api.http.body_key_checks import unknown_key_warnings
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
from shared.errors import AgentNotFound, BasketNotFound, SpecError, UnknownAgent, ValidationFailed
from shared.ids import BASKET_NAME_PATTERN

STORED_FIELDS = ("name", "description", "agents", "steps", "execution_strategy")


def parse_basket(definition: Mapping[str, Any], catalogue: AgentCatalogue, pointer: str = "") -> Basket:
    """Parse ``definition`` to a basket, whose steps have their agents' queues, timeouts and retries.

    ``pointer`` is the JSON pointer to the definition. Raises AgentNotFound if it names an unknown agent,
    ValidationFailed if its graph cannot run.
    """
    if "steps" in definition:
        strategy, steps = GRAPH, _parse_steps(definition["steps"], catalogue, f"{pointer}/steps")
    else:
        strategy = definition["execution_strategy"]
        steps = tuple(_steps_from_agents(definition["agents"], strategy, catalogue))
    return Basket(definition["name"], strategy, steps, definition.get("description", ""))


def check_basket_name(name: str) -> str:
    """Return ``name``; raises BasketNotFound if no basket can have it, so that it never reaches the store."""
    if not BASKET_NAME_PATTERN.fullmatch(name):
        raise BasketNotFound(f"basket {name[:100]!r} was not found: no basket can have this name")
    return name


def step_from_spec(spec: AgentSpec, step_id: str, needs: tuple[str, ...] = ()) -> BasketStep:
    """Return the step for an agent, with the queue, timeout and retry policy of its specification."""
    return BasketStep(step_id, spec.name, needs, spec.queue, spec.timeout_s, parse_retry_policy(spec.retry))


def validate_definition(definition: Mapping[str, Any], pointer: str = "") -> dict[str, Any]:
    """Return the fields of ``definition`` that are stored, with its strategy.

    Raises ValidationFailed if it has neither agents nor steps, or both, if the strategy does not fit them, or if it is
    larger than 64 KiB.
    """
    sources = [field for field in ("agents", "steps") if field in definition]
    strategy = definition.get("execution_strategy")
    if len(sources) != 1:
        message = "name the agents to run, in their order" if not sources else "give agents or steps, not both"
        detail = "agents is required, or steps" if not sources else "a basket is a list of agents or a graph of steps"
        raise ValidationFailed(detail, details=[{"pointer": f"{pointer}/agents", "message": message}])
    is_graph = sources == ["steps"]
    if strategy is not None and is_graph != (strategy == GRAPH):
        message = (
            "goes with agents; leave it out beside steps" if is_graph else "graph goes with steps; this has agents"
        )
        fault = {"pointer": f"{pointer}/execution_strategy", "message": message}
        raise ValidationFailed(f"execution_strategy {message}", details=[fault])
    stored = {field: definition[field] for field in STORED_FIELDS if field in definition}
    size = len(orjson.dumps(stored))
    if size > DEFINITION_MAX_BYTES:  # each run and each row of a list contains its basket
        detail = f"takes {size} bytes; at most {DEFINITION_MAX_BYTES}: pass data in input_data"
        raise ValidationFailed(f"the basket {detail}", details=[{"pointer": pointer, "message": detail}])
    return stored | {"execution_strategy": GRAPH if is_graph else strategy or SEQUENTIAL}


def definition_warnings(raw: Mapping[str, Any], known_keys: Sequence[str], within: str = "") -> list[str]:
    """Return a warning for each unknown key of a basket as it was sent, and of its steps; the first 20.

    ``known_keys`` are the keys of the basket; ``within`` names the basket if it is a part of the body.
    """
    warnings = unknown_key_warnings(raw, known_keys, within=within)
    for index, step in enumerate(raw.get("steps") or ()):
        if len(warnings) >= FAULTS_MAX:
            break
        warnings += unknown_key_warnings(step, STEP_KEYS, within=f"{within}.steps[{index}]".removeprefix("."))
    return warnings[:FAULTS_MAX]


def check_agents_exist(definition: Mapping[str, Any], catalogue: AgentCatalogue) -> None:
    """Raise UnknownAgent, with the JSON pointer of each, if a basket to be stored names agents that do not exist."""
    named = [(f"/agents/{index}", name) for index, name in enumerate(definition.get("agents", ()))]
    named += [(f"/steps/{index}/agent", step["agent"]) for index, step in enumerate(definition.get("steps", ()))]
    details = []
    for pointer, name in named:
        try:
            catalogue.agent(name)
        except AgentNotFound as error:
            details.append({"pointer": pointer, "message": error.message})
    if details:
        raise UnknownAgent("; ".join(detail["message"] for detail in details[:3]), details=details[:20])


def _steps_from_agents(agents: Sequence[str], strategy: str, catalogue: AgentCatalogue) -> Iterator[BasketStep]:
    previous: tuple[str, ...] = ()
    for step_id, name in zip(make_step_ids(agents), agents, strict=True):
        yield step_from_spec(catalogue.agent(name), step_id, () if strategy == PARALLEL else previous)
        previous = (step_id,)


def _parse_steps(steps: Sequence[Mapping[str, Any]], catalogue: AgentCatalogue, pointer: str) -> tuple[BasketStep, ...]:
    parsed = tuple(
        _parse_step(step, step_id, catalogue, f"{pointer}/{index}")
        for index, (step, step_id) in enumerate(zip(steps, _resolve_step_ids(steps), strict=True))
    )
    faults = find_graph_faults(parsed)
    if faults:
        details = [{"pointer": pointer + fault.pointer, "message": fault.message} for fault in faults[:20]]
        raise ValidationFailed("; ".join(fault.message for fault in faults[:3]), details=details)
    return parsed


def _resolve_step_ids(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each step's id: the given one, else its agent's name, with a number if that is taken."""
    explicit_ids = {step["id"] for step in steps if "id" in step}
    unnamed = iter(make_step_ids([step["agent"] for step in steps if "id" not in step], reserved_ids=explicit_ids))
    return [step["id"] if "id" in step else next(unnamed) for step in steps]


def _parse_step(step: Mapping[str, Any], step_id: str, catalogue: AgentCatalogue, pointer: str) -> BasketStep:
    spec = catalogue.agent(step["agent"])
    try:
        policy = parse_retry_policy(step.get("retry", spec.retry))
    except SpecError as error:
        fault = {"pointer": f"{pointer}/retry", "message": error.message}
        raise ValidationFailed(error.message, details=[fault]) from error
    timeout_s = float(step.get("timeout_s", spec.timeout_s))
    needs = tuple(dict.fromkeys(step.get("needs", ())))
    return BasketStep(step_id, spec.name, needs, spec.queue, timeout_s, policy, step.get("input"))
