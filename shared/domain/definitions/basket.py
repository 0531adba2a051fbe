"""A basket: a named graph of steps, of which an execution keeps a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.domain.definitions.retry_policy import DEFAULT_RETRY_POLICY, RetryPolicy

SEQUENTIAL: Final = "sequential"
PARALLEL: Final = "parallel"
GRAPH: Final = "graph"
STEPS_MAX: Final = 200
STEP_ID_MAX: Final = 63
RUN_INPUT: Final = "input"


@dataclass(frozen=True, slots=True)
class BasketStep:
    """One agent's place in a basket; it may start when all its ``needs`` are completed."""

    id: str
    agent: str
    needs: tuple[str, ...] = ()
    queue: str = "default"
    timeout_s: float = 300.0
    retry: RetryPolicy = DEFAULT_RETRY_POLICY
    input: Mapping[str, Any] | None = None
    """What the step is given, field by field: a literal, or ``{"from": ..., "pointer": ...}``; None: what it needs."""


@dataclass(frozen=True, slots=True)
class Basket:
    """A named graph of steps in the order they were written; ``strategy`` tells how their inputs are made."""

    name: str
    strategy: str
    steps: tuple[BasketStep, ...]
    description: str = ""

    @property
    def agents(self) -> list[str]:
        """The agents' names, in the order of the steps."""
        return [step.agent for step in self.steps]

    @property
    def terminal_steps(self) -> tuple[str, ...]:
        """The steps that nobody needs: whose outputs are the run's result."""
        needed = {need for step in self.steps for need in step.needs}
        return tuple(step.id for step in self.steps if step.id not in needed)

    def step(self, step_id: str) -> BasketStep:
        """Answer the step of this id; KeyError where the basket has none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)


def make_step_ids(agents: Iterable[str], reserved_ids: Iterable[str] = ()) -> list[str]:
    """Answer an id for each agent: its name, then ``name-2`` for its second place, and so on; none that is taken."""
    seen: Counter[str] = Counter()
    reserved_ids = set(reserved_ids)
    ids = []
    for agent in agents:
        seen[agent] += 1
        step_id = agent if seen[agent] == 1 else _numbered_id(agent, seen[agent])
        while step_id in reserved_ids:
            seen[agent] += 1
            step_id = _numbered_id(agent, seen[agent])
        reserved_ids.add(step_id)
        ids.append(step_id)
    return ids


def _numbered_id(agent: str, place: int) -> str:
    end = f"-{place}"
    return agent[: STEP_ID_MAX - len(end)] + end


@dataclass(frozen=True, slots=True)
class GraphFault:
    """What is wrong with a graph, and where: a JSON Pointer into its list of steps."""

    pointer: str
    message: str


def find_graph_faults(steps: Sequence[BasketStep]) -> list[GraphFault]:
    """Answer what is wrong with a graph: an id given twice, a need that is not there, a circle."""
    seen: set[str] = set()
    known = {step.id for step in steps}
    faults = []
    for place, step in enumerate(steps):
        if step.id in seen:
            faults.append(GraphFault(f"/{place}/id", f"the step id {step.id!r} is given twice"))
        seen.add(step.id)
        faults += [
            GraphFault(f"/{place}/needs", f"{step.id} needs {need!r}, which is no step")
            for need in step.needs
            if need not in known
        ]
        for name, value in (step.input or {}).items():
            if is_input_reference(value) and value["from"] not in {*step.needs, RUN_INPUT}:
                pointer = f"/{place}/input/{name.replace('~', '~0').replace('/', '~1')}/from"
                message = f"{step.id} takes its input from {value['from']!r}, which it does not need"
                faults.append(GraphFault(pointer, message))
    if not faults and (circle := _find_cycle({step.id: step.needs for step in steps})):
        first = next(place for place, step in enumerate(steps) if step.id in circle)
        message = f"the steps {' -> '.join(circle)} need each other in a circle"
        faults.append(GraphFault(f"/{first}/needs", message))
    return faults


def is_input_reference(value: Any) -> bool:
    """True where a field of a step's ``input`` names another place and is no literal."""
    if not isinstance(value, Mapping) or not {"from"} <= set(value) <= {"from", "pointer"}:
        return False
    return all(isinstance(part, str) for part in value.values())


def _find_cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The steps of one circle, in its order; empty where there is none. Takes away what has no needs left."""
    left = {step: set(of) for step, of in needs.items()}
    while free := [step for step, of in left.items() if not of]:
        for step in free:
            del left[step]
        for of in left.values():
            of.difference_update(free)
    if not left:
        return []
    path = [min(left)]
    while (following := min(left[path[-1]])) not in path:
        path.append(following)
    return [*path[path.index(following) :], following]
