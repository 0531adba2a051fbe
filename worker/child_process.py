"""Builds the runner of a pool's child process at its first task: Celery resets earlier signal handlers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from billiard import current_process

from shared.bootstrap import Services
from worker.agent_loader import Agent
from worker.steps.runner import Runner
from worker.supervision.shared_slots import SharedSlots
from worker.supervision.step_interrupter import RunningStep, StepInterrupter


def create_runner(services: Services, agents: Mapping[str, Agent], slots: SharedSlots, queues: Sequence[str]) -> Runner:
    """Build this process's runner and start its step interrupter; to be called in the main thread."""
    settings = services.settings
    index = getattr(current_process(), "index", 0)

    def finish(running_step: RunningStep, reason: str) -> None:
        runner.force_finish(running_step, reason)

    interrupter = StepInterrupter(
        slots, slots.slot(index), grace_s=settings.grace_s, drain_s=settings.drain_s, finish=finish
    )
    runner = Runner(services, agents, interrupter, queues)
    interrupter.start()
    return runner
