"""The simulator plays a script: it runs for some time, moves its progress, loses its worker, fails or completes.

Checkpoints store its position in the script, so that the next attempt goes on where a lost one was. A retry of the run
plays the script anew.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson

from shared.domain.lifecycle.simulator_script import PhaseKind, ScriptPhase, parse_script
from worker.context import AgentContext
from worker.simulated_outcome import ScriptedFailure, SimulatedWorkerLoss

PROGRESS_EVERY_S: Final = 0.2
CHECKPOINT_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _ScriptPosition:
    """How far a script was played: its phase, the seconds of it that are over, and the percentage before it."""

    execution_id: str
    phase: int = 0
    played_s: float = 0.0
    percent: int = 0


class SimulationCancelled(Exception):
    """The run was asked to stop."""


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Play ``given["script"]`` to its end, from the position at which an earlier attempt left it."""
    position = _ScriptPosition(**(ctx.restore() or {"execution_id": ctx.execution_id}))
    if position.execution_id != ctx.execution_id:  # of the run that this one retries
        position = _ScriptPosition(ctx.execution_id)
    for number, phase in enumerate(parse_script(given.get("script", ()))):
        if number < position.phase:
            continue
        position = _play(phase, replace(position, phase=number), ctx)
    return _result({"simulated": True, "attempts": ctx.attempt}, int(given.get("result_bytes", 0)))


def _play(phase: ScriptPhase, position: _ScriptPosition, ctx: AgentContext) -> _ScriptPosition:
    """Play one phase and return the position at which the next one begins."""
    following = replace(position, phase=position.phase + 1, played_s=0.0)
    if phase.kind is PhaseKind.RUNNING:
        _run(phase, position, ctx)
        return replace(following, percent=position.percent if phase.percent is None else phase.percent)
    if phase.kind is PhaseKind.WORKER_LOST:
        ctx.checkpoint(asdict(following))
        ctx.progress(position.percent / 100, "the worker is lost")
        raise SimulatedWorkerLoss
    if phase.code is not None:
        raise ScriptedFailure(phase.code)
    return following  # queued was played before the step was offered


def _run(phase: ScriptPhase, position: _ScriptPosition, ctx: AgentContext) -> None:
    ctx.log(f"running for {phase.duration_s:g} s", phase=position.phase)
    target_percent = position.percent if phase.percent is None else phase.percent
    began_at = time.monotonic() - position.played_s
    checkpoint_at = time.monotonic()
    while True:
        played_s = min(time.monotonic() - began_at, phase.duration_s)
        done_fraction = played_s / phase.duration_s if phase.duration_s else 1.0
        ctx.progress(
            (position.percent + (target_percent - position.percent) * done_fraction) / 100,
            f"{phase.duration_s - played_s:.1f} s to go",
        )
        if played_s >= phase.duration_s:
            return
        if ctx.cancel.wait(min(PROGRESS_EVERY_S, phase.duration_s - played_s)):
            raise SimulationCancelled("the run was asked to stop")
        if time.monotonic() - checkpoint_at >= CHECKPOINT_EVERY_S:
            ctx.checkpoint(asdict(replace(position, played_s=time.monotonic() - began_at)))
            checkpoint_at = time.monotonic()


def _result(result: dict[str, Any], result_bytes: int) -> dict[str, Any]:
    missing_bytes = result_bytes - len(orjson.dumps(result | {"filler": ""}))
    return result | {"filler": "x" * missing_bytes} if missing_bytes > 0 else result
