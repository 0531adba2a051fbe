"""Basket definitions: validates the JSON of a basket and parses it to the graph of steps that an execution runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from api.catalogue.schemas import DEFINITION_MAX_BYTES
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
from shared.domain.definitions.marked_flow import literal_marks
from shared.domain.definitions.retry_policy import DEFAULT_RETRY_POLICY, parse_retry_policy
from shared.domain.definitions.unavailability import agent_unavailable
from shared.errors import AgentNotFound, AgentUnavailable, BasketNotFound, RequestError, SpecError, ValidationFailed
from shared.ids import BASKET_NAME_PATTERN
from shared.json_pointer import format_pointer

STORED_FIELDS = ("name", "description", "agents", "steps", "execution_strategy")


def parse_basket(
    definition: Mapping[str, Any],
    catalogue: AgentCatalogue,
    pointer: str = "",
    *,
    missing_agent: type[RequestError] = AgentNotFound,
) -> Basket:
    """Parse ``definition`` to a basket, whose steps have their agents' queues, timeouts and retries.

    ``pointer`` is the JSON pointer to the definition. The faults of all steps are told at once: raises
    ``missing_agent`` if it only names unknown agents, else ValidationFailed. If it has no such fault, and names agents
    whose specs are wrong, raises AgentUnavailable.
    """
    faults = _FaultCollector()
    if "steps" in definition:
        strategy, steps = GRAPH, _parse_steps(definition["steps"], catalogue, faults, f"{pointer}/steps")
    else:
        strategy = definition["execution_strategy"]
        steps = tuple(_parse_agents(definition["agents"], strategy, catalogue, faults, f"{pointer}/agents"))
    faults.raise_any(missing_agent)
    return Basket(definition["name"], strategy, steps, definition.get("description", ""))


def find_stored_faults(definition: Mapping[str, Any], catalogue: AgentCatalogue) -> Sequence[Mapping[str, Any]]:
    """Return why a stored basket can never run: rules that are newer than it is, or agents that are gone."""
    try:
        parse_basket(definition, catalogue)
    except RequestError as error:
        return error.details
    except AgentUnavailable:
        pass
    return ()


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


class _FaultCollector:
    """Collects the faults of all steps, so that they are told at once."""

    def __init__(self) -> None:
        self._faults: list[dict[str, str]] = []
        self._are_missing_agents = True
        self._broken_agents: dict[str, str] = {}

    def add(self, pointer: str, message: str) -> None:
        """Add a fault at a JSON pointer."""
        self._faults.append({"pointer": pointer, "message": message})
        self._are_missing_agents = False

    def find_agent(self, name: str, catalogue: AgentCatalogue, pointer: str) -> AgentSpec | None:
        """Return an agent's spec; None, and a fault at ``pointer``, if there is none; None if its spec is wrong."""
        if name in catalogue.broken:
            self._broken_agents[name] = catalogue.broken[name].reason
            return None
        try:
            return catalogue.agent(name)
        except AgentNotFound as error:
            self._faults.append({"pointer": pointer, "message": error.message})
            return None

    def raise_any(self, missing_agent: type[RequestError]) -> None:
        """Raise the faults: as ``missing_agent`` if there are no others, else as ValidationFailed.

        If there is none, raise AgentUnavailable for the agents whose specs are wrong.
        """
        if self._faults:
            summary = "; ".join(fault["message"] for fault in self._faults[:3])
            kind = missing_agent if self._are_missing_agents else ValidationFailed
            raise kind(summary, details=self._faults[:FAULTS_MAX])
        if self._broken_agents:
            raise agent_unavailable(self._broken_agents)


def _parse_agents(
    agents: Sequence[str], strategy: str, catalogue: AgentCatalogue, faults: _FaultCollector, pointer: str
) -> Iterator[BasketStep]:
    previous: tuple[str, ...] = ()
    for index, (step_id, name) in enumerate(zip(make_step_ids(agents), agents, strict=True)):
        spec = faults.find_agent(name, catalogue, f"{pointer}/{index}")
        if spec is not None:
            yield step_from_spec(spec, step_id, () if strategy == PARALLEL else previous)
        previous = (step_id,)


def _parse_steps(
    steps: Sequence[Mapping[str, Any]], catalogue: AgentCatalogue, faults: _FaultCollector, pointer: str
) -> tuple[BasketStep, ...]:
    parsed = tuple(
        _parse_step(step, step_id, catalogue, faults, f"{pointer}/{index}")
        for index, (step, step_id) in enumerate(zip(steps, _resolve_step_ids(steps), strict=True))
    )
    for fault in find_graph_faults(parsed):
        faults.add(pointer + fault.pointer, fault.message)
    for index, message in _find_ambiguous_joins(parsed, catalogue):
        faults.add(f"{pointer}/{index}/needs", message)
    return parsed


def _find_ambiguous_joins(steps: Sequence[BasketStep], catalogue: AgentCatalogue) -> Iterator[tuple[int, str]]:
    """Yield each step, by its index, that would merge outputs which by their schemas have a key in common."""
    agents = {step.id: step.agent for step in steps}
    for index, step in enumerate(steps):
        if step.input is not None:
            continue
        given_by: dict[str, str] = {}
        for need in step.needs:
            has_agent = need in agents and catalogue.has(agents[need])
            for key in catalogue.agent(agents[need]).output_schema.get("properties", ()) if has_agent else ():
                if key in given_by:
                    fix = f'for example "input": {{"{key}": {{"from": "{need}", "pointer": "/{key}"}}}}'
                    yield (
                        index,
                        f"{given_by[key]} and {need} both give {key!r}, and one would be lost: say which, {fix}",
                    )
                given_by.setdefault(key, need)


def _resolve_step_ids(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each step's id: the given one, else its agent's name, with a number if that is taken."""
    explicit_ids = {step["id"] for step in steps if "id" in step}
    unnamed = iter(make_step_ids([step["agent"] for step in steps if "id" not in step], reserved_ids=explicit_ids))
    return [step["id"] if "id" in step else next(unnamed) for step in steps]


def _parse_step(
    step: Mapping[str, Any], step_id: str, catalogue: AgentCatalogue, faults: _FaultCollector, pointer: str
) -> BasketStep:
    needs, step_input = tuple(dict.fromkeys(step.get("needs", ()))), step.get("input")
    spec = faults.find_agent(step["agent"], catalogue, f"{pointer}/agent")
    policy = DEFAULT_RETRY_POLICY
    try:
        policy = parse_retry_policy(step.get("retry", spec.retry if spec else "default"))
    except SpecError as error:
        for fault in error.details or ({"pointer": "", "message": error.message},):
            faults.add(f"{pointer}/retry{fault['pointer']}", fault["message"])
    if spec is None:
        return BasketStep(step_id, step["agent"], needs, input=step_input)
    if step_input is not None and (schema := catalogue.marked_input_schema(spec.name)) is not None:
        for path in literal_marks(step_input, schema):
            faults.add(
                f"{pointer}/input{format_pointer(path)}",
                "is a marked field: a basket is shown to everyone, so refer to input_data and submit the value there",
            )
    timeout_s = float(step.get("timeout_s", spec.timeout_s))
    return BasketStep(step_id, spec.name, needs, spec.queue, timeout_s, policy, step_input)
