"""Workload of a chaos run: chains, fans, diamonds, retries, long steps and some runs that are built to fail."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

LONGEST_S = 5.0
AGENTS = {"claimed": ("effect",), "idempotent": ("effect_idempotent",), "mixed": ("effect", "effect_idempotent")}
"""The agents of the steps, by the name of the mix: those that are claimed first, those that need not be, and both."""
KINDS = ("chain", "chain", "fan", "diamond", "retry", "retry", "quick", "quick", "quick", "broken", "long")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run to submit with ``key``; ``steps`` are the ids that it should complete unless it is ``broken``."""

    key: str
    kind: str
    body: dict[str, Any]
    steps: tuple[str, ...]

    @property
    def is_broken(self) -> bool:
        """Whether the run is built to fail."""
        return self.kind == "broken"


def plan(chance: random.Random, number: int, provider: str, mix: str = "mixed") -> PlannedRun:
    """Build the run of this number, with agents of a mix of :data:`AGENTS`."""
    kind = chance.choice(KINDS)
    steps = [
        {
            "id": step_id,
            "agent": chance.choice(AGENTS[mix]),
            "needs": needs,
            "input": {"provider": provider, **step_input},
        }
        for step_id, needs, step_input in _steps(chance, kind)
    ]
    body = {"config": {"name": f"chaos-{kind}", "steps": steps}, "input_data": {"number": number}}
    return PlannedRun(f"chaos-{number}", kind, body, tuple(str(step["id"]) for step in steps))


def _steps(chance: random.Random, kind: str) -> list[tuple[str, list[str], dict[str, Any]]]:
    brief = {"seconds": round(chance.uniform(0, 0.2), 3)}
    if kind in {"chain", "quick"}:
        step_input: dict[str, Any] = {} if kind == "quick" else brief
        length = chance.randint(2, 5)
        return [(f"s{index}", [f"s{index - 1}"] if index else [], step_input) for index in range(length)]
    if kind == "fan":
        return [("first", [], {}), *((f"part{index}", ["first"], brief) for index in range(chance.randint(2, 4)))]
    if kind == "diamond":
        return [("top", [], {}), ("left", ["top"], brief), ("right", ["top"], brief), ("join", ["left", "right"], {})]
    if kind == "retry":
        return [("first", [], {}), ("again", ["first"], brief | {"failures": chance.randint(1, 2)})]
    if kind == "broken":
        return [("first", [], {}), ("breaks", ["first"], {"broken": True}), ("never", ["breaks"], {})]
    return [("long", [], {"seconds": round(chance.uniform(2, LONGEST_S), 2)}), ("after", ["long"], {})]
