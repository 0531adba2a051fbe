"""Plays a script: runs for so long, moves its progress, loses its worker, fails, or returns a large result.

Where it is in its script is kept by checkpoints, so that another attempt goes on where a lost one was.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson

from shared.domain.lifecycle.simulation import PhaseKind, ScriptPhase, parse_script
from worker.context import AgentContext
from worker.simulated_outcome import ScriptedFailure, SimulatedWorkerLoss

PROGRESS_EVERY_S: Final = 0.2
CHECKPOINT_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _ScriptPosition:
    """How far a script was played: its phase, the seconds of it that are over, and the percentage before it."""

    phase: int = 0
    played_s: float = 0.0
    percent: int = 0


class SimulationCancelled(Exception):
    """The run was asked to stop."""


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Play ``given["script"]`` to its end, from wherever an earlier attempt left it."""
    place = _ScriptPosition(**(ctx.restore() or {}))
    for number, phase in enumerate(parse_script(given.get("script", ()))):
        if number < place.phase:
            continue
        place = _play(phase, replace(place, phase=number), ctx)
    return _result({"simulated": True, "attempts": ctx.attempt}, given.get("result_bytes", 0))


def _play(phase: ScriptPhase, place: _ScriptPosition, ctx: AgentContext) -> _ScriptPosition:
    """Play one phase and answer where the next one begins."""
    following = _ScriptPosition(place.phase + 1, percent=place.percent)
    if phase.kind is PhaseKind.RUNNING:
        _run(phase, place, ctx)
        return replace(following, percent=place.percent if phase.percent is None else phase.percent)
    if phase.kind is PhaseKind.WORKER_LOST:
        ctx.checkpoint(asdict(following))
        ctx.progress(place.percent / 100, "the worker is lost")
        raise SimulatedWorkerLoss
    if phase.code is not None:
        raise ScriptedFailure(phase.code)
    return following  # queued was played before the step was offered


def _run(phase: ScriptPhase, place: _ScriptPosition, ctx: AgentContext) -> None:
    ctx.log(f"running for {phase.duration_s:g} s", phase=place.phase)
    aim = place.percent if phase.percent is None else phase.percent
    began = time.monotonic() - place.played_s
    kept_at = time.monotonic()
    while True:
        played_s = min(time.monotonic() - began, phase.duration_s)
        part = played_s / phase.duration_s if phase.duration_s else 1.0
        ctx.progress((place.percent + (aim - place.percent) * part) / 100, f"{phase.duration_s - played_s:.1f} s to go")
        if played_s >= phase.duration_s:
            return
        if ctx.cancel.wait(min(PROGRESS_EVERY_S, phase.duration_s - played_s)):
            raise SimulationCancelled("the run was asked to stop")
        if time.monotonic() - kept_at >= CHECKPOINT_EVERY_S:
            ctx.checkpoint(asdict(replace(place, played_s=time.monotonic() - began)))
            kept_at = time.monotonic()


def _result(result: dict[str, Any], result_bytes: int) -> dict[str, Any]:
    missing = result_bytes - len(orjson.dumps(result | {"filler": ""}))
    return result | {"filler": "x" * missing} if missing > 0 else result
