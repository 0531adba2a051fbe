"""A basket (workflow definition, DAG): a named graph of steps, of which each execution stores a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.domain.definitions.input_reference import RUN_INPUT, did_you_mean, find_reference_faults
from shared.domain.definitions.retry_policy import DEFAULT_RETRY_POLICY, RetryPolicy
from shared.json_pointer import format_pointer

SEQUENTIAL: Final = "sequential"
PARALLEL: Final = "parallel"
GRAPH: Final = "graph"
STEPS_MAX: Final = 200
STEP_ID_MAX: Final = 63
BULK_AGENT_NAME: Final = "bulk_action"  # of the engine's own step that carries out a bulk action


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
    """The input field by field, with ``{"from": ..., "pointer": ...}`` at any depth; None: made from its needs."""


@dataclass(frozen=True, slots=True)
class Basket:
    """A workflow definition (DAG): a named graph of steps; ``strategy`` says how the inputs of the steps are made."""

    name: str
    strategy: str
    steps: tuple[BasketStep, ...]
    description: str = ""

    @property
    def agents(self) -> list[str]:
        """The names of the agents, in the order of the steps."""
        return [step.agent for step in self.steps]

    def metadata_of(self, execution_id: str) -> dict[str, Any]:
        """Return ``execution_metadata``, which the replies of submits and polls have of a run of this basket."""
        return {
            "execution_id": execution_id,
            "basket_name": self.name,
            "agents_executed": self.agents,
            "strategy": self.strategy,
        }

    @property
    def terminal_steps(self) -> tuple[str, ...]:
        """The ids of the steps that no other step needs; their outputs are the result of the run."""
        needed = {need for step in self.steps for need in step.needs}
        return tuple(step.id for step in self.steps if step.id not in needed)

    def step(self, step_id: str) -> BasketStep:
        """Return the step with this id; raises KeyError if there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)


def make_step_ids(agents: Iterable[str], reserved_ids: Iterable[str] = ()) -> list[str]:
    """Make an id for each agent: its name, ``name-2`` for its second step, and so on; never one of ``reserved_ids``."""
    counts: Counter[str] = Counter()
    reserved_ids = set(reserved_ids)
    ids = []
    for agent in agents:
        while True:
            counts[agent] += 1
            suffix = f"-{counts[agent]}"
            step_id = agent if counts[agent] == 1 else agent[: STEP_ID_MAX - len(suffix)] + suffix
            if step_id not in reserved_ids:
                break
        reserved_ids.add(step_id)
        ids.append(step_id)
    return ids


@dataclass(frozen=True, slots=True)
class GraphFault:
    """A fault of a graph; ``pointer`` is a JSON Pointer into its list of steps."""

    pointer: str
    message: str


def find_graph_faults(steps: Sequence[BasketStep]) -> list[GraphFault]:
    """Return the faults of a graph: a duplicate id, a need that is no step, a faulty reference, a cycle."""
    seen_ids: set[str] = set()
    step_ids = {step.id for step in steps}
    faults = []
    for index, step in enumerate(steps):
        if step.id == RUN_INPUT:
            message = f"no step may be called {RUN_INPUT!r}: input references mean input_data by it"
            faults.append(GraphFault(f"/{index}/id", message))
        if step.id in seen_ids:
            faults.append(GraphFault(f"/{index}/id", f"the step id {step.id!r} is given twice"))
        seen_ids.add(step.id)
        faults += [
            GraphFault(f"/{index}/needs", f"{step.id} needs {need!r}, which is no step{did_you_mean(need, step_ids)}")
            for need in step.needs
            if need not in step_ids
        ]
        faults += [
            GraphFault(format_pointer([index, "input", *path]), message)
            for path, message in find_reference_faults(step.id, step.input or {}, step.needs, step_ids)
        ]
    if not faults and (cycle := _find_cycle({step.id: step.needs for step in steps})):
        first = next(index for index, step in enumerate(steps) if step.id in cycle)
        message = f"the steps {' -> '.join(cycle)} need each other in a circle"
        faults.append(GraphFault(f"/{first}/needs", message))
    return faults


def _find_cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the steps of one cycle, in its order; empty if there is none.

    Removes the steps without needs again and again (topological sort, Kahn 1962); the steps of a cycle remain.
    """
    remaining = {step: set(needed) for step, needed in needs.items()}
    while without_needs := [step for step, needed in remaining.items() if not needed]:
        for step in without_needs:
            del remaining[step]
        for needed in remaining.values():
            needed.difference_update(without_needs)
    if not remaining:
        return []
    path = [min(remaining)]
    while (next_step := min(remaining[path[-1]])) not in path:
        path.append(next_step)
    return [*path[path.index(next_step) :], next_step]
