"""The script that the reserved agent ``simulate`` plays: what a poller will see, phase by phase.

    queued:3   running:10@40   worker_lost   running:5   completed | failed:CODE

``queued`` comes first or not at all, for a run that has begun never goes back to it; the last phase ends the step,
and a script without an end completes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from shared.domain.definitions.step_input import input_of
from shared.domain.execution import ErrorKind, Execution, Step
from shared.domain.status import StepStatus

SIMULATE_AGENT_NAME: Final = "simulate"
SCRIPT_MAX_S: Final = 3_600.0

# What a run that fails with one of these codes says in life; any other is permanent.
ERROR_KIND_BY_CODE: Final[Mapping[str, ErrorKind]] = {"timeout": ErrorKind.TIMEOUT, "worker_lost": ErrorKind.LOST}

_PHASE: Final = re.compile(
    r"(?P<timed>queued|running):(?P<seconds>[0-9]{1,4}(?:\.[0-9]{1,3})?)(?:@(?P<percent>[0-9]{1,3}))?"
    r"|(?P<lost>worker_lost)|(?P<completed>completed)|failed:(?P<code>[a-z][a-z0-9_]{0,62})",
    re.ASCII,
)


class PhaseKind(StrEnum):
    """What a phase plays."""

    QUEUED = "queued"
    RUNNING = "running"
    WORKER_LOST = "worker_lost"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """True for what ends a step."""
        return self in {PhaseKind.COMPLETED, PhaseKind.FAILED}


@dataclass(frozen=True, slots=True)
class ScriptPhase:
    """One entry of a script; ``percent`` is what its progress reaches at its end."""

    kind: PhaseKind
    duration_s: float = 0.0
    percent: int | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptFault:
    """What is wrong with a script, and where: a JSON Pointer into the agent's input."""

    pointer: str
    message: str


def parse_script(script: Sequence[str]) -> tuple[ScriptPhase, ...]:
    """Answer the phases of a script that is right by the agent's input schema; ValueError for an entry that is none."""
    return tuple(_parse_phase(entry) for entry in script)


def find_script_faults(agent_input: Mapping[str, Any]) -> list[ScriptFault]:
    """Answer what no schema can say of a script: phases out of their order, or over an hour in all."""
    return list(_find_faults(parse_script(agent_input.get("script", ()))))


def delay_scripted_steps(new_execution: Execution) -> Execution:
    """Answer a run that nobody has started yet, its first steps held back for as long as their scripts play ``queued``.

    A step that is held rests, offered to nobody, as after a retry. One that is scheduled waits for that alone.
    """
    if new_execution.run_after is not None and new_execution.run_after > new_execution.created_at:
        return new_execution
    steps = dict(new_execution.steps)
    for step in new_execution.basket.steps:
        if step.agent == SIMULATE_AGENT_NAME and not step.needs and step.id not in steps:
            seconds = _queued_phases_s(input_of(new_execution.basket, step.id, json.loads(new_execution.input), {}))
            if seconds:
                until = new_execution.created_at + timedelta(milliseconds=round(seconds * 1_000))
                steps[step.id] = Step(step.id, step.agent, StepStatus.READY, due_by=until)
    return new_execution if len(steps) == len(new_execution.steps) else replace(new_execution, steps=steps)


def _queued_phases_s(given: Mapping[str, Any]) -> float:
    return sum(phase.duration_s for phase in parse_script(given.get("script", ())) if phase.kind is PhaseKind.QUEUED)


def _parse_phase(entry: str) -> ScriptPhase:
    found = _PHASE.fullmatch(entry)
    if found is None:
        raise ValueError(f"{entry!r} is no phase of a script")
    if found["timed"]:
        percent = None if found["percent"] is None else int(found["percent"])
        return ScriptPhase(PhaseKind(found["timed"]), float(found["seconds"]), percent)
    if found["code"]:
        return ScriptPhase(PhaseKind.FAILED, code=found["code"])
    return ScriptPhase(PhaseKind.WORKER_LOST if found["lost"] else PhaseKind.COMPLETED)


def _find_faults(phases: Sequence[ScriptPhase]) -> Iterator[ScriptFault]:
    total_s = 0.0
    began = False
    for place, phase in enumerate(phases):
        pointer = f"/script/{place}"
        if place and phases[place - 1].kind.is_final:
            yield ScriptFault(pointer, f"nothing comes after {phases[place - 1].kind}, which ends the step")
            return
        if phase.kind is PhaseKind.QUEUED and began:
            yield ScriptFault(pointer, "queued comes first: a run that has begun never goes back to it")
        began = began or phase.kind is not PhaseKind.QUEUED
        total_s += phase.duration_s
        if total_s > SCRIPT_MAX_S >= total_s - phase.duration_s:
            yield ScriptFault(pointer, f"the script takes over {SCRIPT_MAX_S:g} s in all")
