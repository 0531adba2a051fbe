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

from shared.domain.definitions.step_input import given_to
from shared.domain.execution import ErrorKind, Execution, Step
from shared.domain.status import StepStatus

SIMULATE: Final = "simulate"
TOTAL_MAX_S: Final = 3_600.0

# What a run that fails with one of these codes says in life; any other is permanent.
KINDS: Final[Mapping[str, ErrorKind]] = {"timeout": ErrorKind.TIMEOUT, "worker_lost": ErrorKind.LOST}

_PHASE: Final = re.compile(
    r"(?P<timed>queued|running):(?P<seconds>[0-9]{1,4}(?:\.[0-9]{1,3})?)(?:@(?P<percent>[0-9]{1,3}))?"
    r"|(?P<lost>worker_lost)|(?P<completed>completed)|failed:(?P<code>[a-z][a-z0-9_]{0,62})",
    re.ASCII,
)


class Play(StrEnum):
    """What a phase plays."""

    QUEUED = "queued"
    RUNNING = "running"
    WORKER_LOST = "worker_lost"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        """True for what ends a step."""
        return self in {Play.COMPLETED, Play.FAILED}


@dataclass(frozen=True, slots=True)
class Phase:
    """One entry of a script; ``percent`` is what its progress reaches at its end."""

    play: Play
    seconds: float = 0.0
    percent: int | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptFault:
    """What is wrong with a script, and where: a JSON Pointer into the agent's input."""

    pointer: str
    message: str


def read_script(script: Sequence[str]) -> tuple[Phase, ...]:
    """Answer the phases of a script that is right by the agent's input schema; ValueError for an entry that is none."""
    return tuple(_phase(entry) for entry in script)


def script_faults(given: Mapping[str, Any]) -> list[ScriptFault]:
    """Answer what no schema can say of a script: phases out of their order, or over an hour in all."""
    return list(_faults(read_script(given.get("script", ()))))


def as_scripted(blank: Execution) -> Execution:
    """Answer a run that nobody has started yet, its first steps held back for as long as their scripts play ``queued``.

    A step that is held rests, offered to nobody, as after a retry. One that is scheduled waits for that alone.
    """
    if blank.run_after is not None and blank.run_after > blank.created_at:
        return blank
    steps = dict(blank.steps)
    for step in blank.basket.steps:
        if step.agent == SIMULATE and not step.needs and step.id not in steps:
            seconds = _queued_s(given_to(blank.basket, step.id, json.loads(blank.input), {}))
            if seconds:
                until = blank.created_at + timedelta(milliseconds=round(seconds * 1_000))
                steps[step.id] = Step(step.id, step.agent, StepStatus.READY, due_by=until)
    return blank if len(steps) == len(blank.steps) else replace(blank, steps=steps)


def _queued_s(given: Mapping[str, Any]) -> float:
    return sum(phase.seconds for phase in read_script(given.get("script", ())) if phase.play is Play.QUEUED)


def _phase(entry: str) -> Phase:
    found = _PHASE.fullmatch(entry)
    if found is None:
        raise ValueError(f"{entry!r} is no phase of a script")
    if found["timed"]:
        percent = None if found["percent"] is None else int(found["percent"])
        return Phase(Play(found["timed"]), float(found["seconds"]), percent)
    if found["code"]:
        return Phase(Play.FAILED, code=found["code"])
    return Phase(Play.WORKER_LOST if found["lost"] else Play.COMPLETED)


def _faults(phases: Sequence[Phase]) -> Iterator[ScriptFault]:
    total_s = 0.0
    began = False
    for place, phase in enumerate(phases):
        pointer = f"/script/{place}"
        if place and phases[place - 1].play.is_end:
            yield ScriptFault(pointer, f"nothing comes after {phases[place - 1].play}, which ends the step")
            return
        if phase.play is Play.QUEUED and began:
            yield ScriptFault(pointer, "queued comes first: a run that has begun never goes back to it")
        began = began or phase.play is not Play.QUEUED
        total_s += phase.seconds
        if total_s > TOTAL_MAX_S >= total_s - phase.seconds:
            yield ScriptFault(pointer, f"the script takes over {TOTAL_MAX_S:g} s in all")
