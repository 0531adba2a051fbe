"""The Celery task that runs steps, and the runner of each of the pool's child processes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import structlog
from billiard import current_process
from celery import Celery

from shared.bootstrap import Services
from shared.queue.message import RUN_STEP_TASK, message_from_args
from worker.agent_loader import Agent
from worker.steps.runner import Runner, dead_letter_message
from worker.supervision.shared_slots import SharedSlots
from worker.supervision.step_interrupter import StepInterrupter


def register_task(app: Celery, services: Services, agents: Mapping[str, Agent], slots: SharedSlots) -> None:
    """Register the task in ``app`` under its wire name: each message goes to the runner of the process that gets it.

    A message that cannot be read becomes a dead letter, and no failure of a step ends the worker's process.
    """

    @cache
    def runner() -> Runner:
        # Built at a child's first task and not before the fork: Celery resets earlier signal handlers.
        settings = services.settings
        slot = slots.slot(getattr(current_process(), "index", 0))
        interrupter = StepInterrupter(slots, slot, grace_s=settings.grace_s, drain_s=settings.drain_s)
        built = Runner(services, agents, interrupter, list(app.amqp.queues.consume_from))
        interrupter.start(built.force_finish)
        return built

    @app.task(name=RUN_STEP_TASK, shared=False)  # type: ignore[untyped-decorator]
    def run_step(*args: Any, **unknown: Any) -> None:
        try:
            message = message_from_args(*args, **unknown)
        except (TypeError, ValueError, OverflowError):
            dead_letter_message(services.dead_letters, repr((args, unknown)))
            return
        try:
            runner().run_message_and_backlog(message)
        except BaseException:  # noqa: BLE001
            # A BaseException that reaches Celery ends its main process, and the redelivered message ends the next one.
            # Instead the step's lease runs out, and the reconciler offers it again.
            structlog.get_logger().exception("a step was left to its lease", execution_id=message.execution_id)
