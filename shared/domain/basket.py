"""A basket: a named graph of steps, of which an execution keeps a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SEQUENTIAL: Final = "sequential"
STEPS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class BasketStep:
    """One agent's place in a basket; it may start when all its ``needs`` are completed."""

    id: str
    agent: str
    needs: tuple[str, ...] = ()
    queue: str = "default"
    timeout_s: float = 300.0


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

    def step(self, step_id: str) -> BasketStep:
        """Answer the step of this id; KeyError where the basket has none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)


def step_ids(agents: Iterable[str]) -> list[str]:
    """Answer an id for each agent: its name, then ``name-2`` for its second place, and so on."""
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    ids = []
    for agent in agents:
        seen[agent] += 1
        step_id = agent if seen[agent] == 1 else f"{agent}-{seen[agent]}"
        while step_id in taken:
            seen[agent] += 1
            step_id = f"{agent}-{seen[agent]}"
        taken.add(step_id)
        ids.append(step_id)
    return ids
