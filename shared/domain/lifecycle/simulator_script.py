"""Simulator script of the reserved agent ``simulate`` (a test double): the statuses that a poller sees, in phases.

    queued:3   running:10@40   worker_lost   running:5   completed | failed:CODE

``queued`` may only come first, because a run that has begun never goes back to it. The last phase ends the step;
a script without a final phase completes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from shared.domain.definitions.step_input import input_of
from shared.domain.execution import ErrorKind, Execution, Step
from shared.domain.status import StepStatus

SIMULATE_AGENT_NAME: Final = "simulate"
SCRIPT_MAX_S: Final = 3_600.0

# The error kinds that real runs have with these codes; any other code is permanent.
ERROR_KIND_BY_CODE: Final[Mapping[str, ErrorKind]] = {"timeout": ErrorKind.TIMEOUT, "worker_lost": ErrorKind.LOST}

_PHASE: Final = re.compile(
    r"(?P<timed>queued|running):(?P<seconds>[0-9]{1,4}(?:\.[0-9]{1,3})?)(?:@(?P<percent>[0-9]{1,3}))?"
    r"|(?P<lost>worker_lost)|(?P<completed>completed)|failed:(?P<code>[a-z][a-z0-9_]{0,62})",
    re.ASCII,
)


class PhaseKind(StrEnum):
    """The kind of a script's phase."""

    QUEUED = "queued"
    RUNNING = "running"
    WORKER_LOST = "worker_lost"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ScriptPhase:
    """One entry of a script; ``percent`` is the progress at the end of the phase."""

    kind: PhaseKind
    duration_s: float = 0.0
    percent: int | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptFault:
    """A fault of a script; ``pointer`` is a JSON Pointer into the agent's input."""

    pointer: str
    message: str


def parse_script(script: Sequence[str]) -> tuple[ScriptPhase, ...]:
    """Parse a script that the agent's input schema accepts; raises ValueError if an entry is not a phase."""
    return tuple(_parse_phase(entry) for entry in script)


def find_script_faults(agent_input: Mapping[str, Any]) -> list[ScriptFault]:
    """Return the faults of a script that a schema cannot express: wrong order of phases, or over an hour in total."""
    faults = []
    has_begun = False
    total_s = 0.0
    phases = parse_script(agent_input.get("script", ()))
    for index, phase in enumerate(phases):
        pointer = f"/script/{index}"
        if index and phases[index - 1].kind in {PhaseKind.COMPLETED, PhaseKind.FAILED}:
            faults.append(ScriptFault(pointer, f"nothing comes after {phases[index - 1].kind}, which ends the step"))
            break
        if phase.kind is PhaseKind.QUEUED and has_begun:
            faults.append(ScriptFault(pointer, "queued comes first: a run that has begun never goes back to it"))
        has_begun = has_begun or phase.kind is not PhaseKind.QUEUED
        total_s += phase.duration_s
        if total_s > SCRIPT_MAX_S >= total_s - phase.duration_s:
            faults.append(ScriptFault(pointer, f"the script takes over {SCRIPT_MAX_S:g} s in all"))
    return faults


def delay_scripted_steps(new_execution: Execution) -> Execution:
    """Return a new run whose first steps are delayed for as long as their scripts are in the phase ``queued``.

    Such a step is a delayed step as after a retry: it is not offered until its time. A scheduled run is unchanged: it
    waits for its schedule only.
    """
    if new_execution.run_after is not None and new_execution.run_after > new_execution.created_at:
        return new_execution
    steps = dict(new_execution.steps)
    for step in new_execution.basket.steps:
        if step.agent == SIMULATE_AGENT_NAME and not step.needs and step.id not in steps:
            step_input = input_of(new_execution.basket, step.id, json.loads(new_execution.input), {})
            phases = parse_script(step_input.get("script", ()))
            seconds = sum(phase.duration_s for phase in phases if phase.kind is PhaseKind.QUEUED)
            if seconds:
                until = new_execution.created_at + timedelta(milliseconds=round(seconds * 1_000))
                steps[step.id] = Step(step.id, step.agent, StepStatus.READY, due_by=until)
    return new_execution if len(steps) == len(new_execution.steps) else replace(new_execution, steps=steps)


def _parse_phase(entry: str) -> ScriptPhase:
    match = _PHASE.fullmatch(entry)
    if match is None:
        raise ValueError(f"{entry!r} is no phase of a script")
    if match["timed"]:
        percent = None if match["percent"] is None else int(match["percent"])
        return ScriptPhase(PhaseKind(match["timed"]), float(match["seconds"]), percent)
    if match["code"]:
        return ScriptPhase(PhaseKind.FAILED, code=match["code"])
    return ScriptPhase(PhaseKind.WORKER_LOST if match["lost"] else PhaseKind.COMPLETED)
