"""What a child of the pool works with, made at its first task: Celery resets signal handlers that were set before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from billiard import current_process

from shared.bootstrap import Services
from worker.agent_loader import Agent
from worker.steps.runner import Runner
from worker.supervision.shared_slots import SharedSlots
from worker.supervision.step_interrupter import RunningStep, StepInterrupter


def create_runner(services: Services, agents: Mapping[str, Agent], slots: SharedSlots, queues: Sequence[str]) -> Runner:
    """Answer this process's runner, with its minder begun; to be called in its main thread."""
    settings = services.settings
    index = getattr(current_process(), "index", 0)

    def finish(minded: RunningStep, why: str) -> None:
        runner.force_finish(minded, why)

    minder = StepInterrupter(
        slots, slots.slot(index), grace_s=settings.grace_s, drain_s=settings.drain_s, finish=finish
    )
    runner = Runner(services, agents, minder, queues)
    minder.start()
    return runner
