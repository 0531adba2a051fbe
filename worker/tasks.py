"""The Celery task that runs steps, and the runner of each of the pool's child processes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import structlog
from billiard import current_process
from celery import Celery

from shared.bootstrap import Services
from shared.errors import BucketError
from shared.queue.message import RUN_STEP_TASK, message_from_args
from worker.agent_loader import Agent
from worker.steps.runner import Runner, dead_letter_message
from worker.supervision.agent_isolation import AgentIsolation
from worker.supervision.shared_slots import SharedSlots
from worker.supervision.step_interrupter import StepInterrupter

EXIT_UNFIT: Final = 72


def register_task(app: Celery, services: Services, agents: Mapping[str, Agent], slots: SharedSlots) -> None:
    """Register the task in ``app`` under its wire name: each message goes to the runner of the process that gets it.

    A message that cannot be read becomes a dead letter, and no failure of an agent ends the child that runs it. A child
    whose own code failed, or that cannot be put back as it was before an agent, ends and is replaced.
    """

    @cache
    def child() -> tuple[Runner, AgentIsolation]:
        # Built at a child's first task and not before the fork: Celery resets earlier signal handlers.
        settings = services.settings
        slot = slots.slot(getattr(current_process(), "index", 0))
        interrupter = StepInterrupter(slots, slot, grace_s=settings.grace_s, drain_s=settings.drain_s)
        interrupter.install_signal_handler()
        isolation = AgentIsolation()
        runner = Runner(services, agents, interrupter, list(app.amqp.queues.consume_from), isolation)
        interrupter.start(runner.force_finish)
        if services.tracer is not None:
            services.tracer.start()
        return runner, isolation

    @app.task(name=RUN_STEP_TASK, shared=False)  # type: ignore[untyped-decorator]
    def run_step(*args: Any, **unknown: Any) -> None:
        try:
            message = message_from_args(*args, **unknown)
        except (TypeError, ValueError, OverflowError, OSError):
            dead_letter_message(services.dead_letters, repr((args, unknown)))
            return
        try:
            runner, isolation = child()
            runner.run_message_and_backlog(message)
        except BucketError as error:  # a store that is away, for example, which ends no process
            structlog.get_logger().warning(
                "a step was left to its lease", execution_id=message.execution_id, reason=error.message
            )
        except BaseException as failure:
            # This process may be what is broken, and as it is always free it would be given every message.
            structlog.get_logger().exception(
                "a step is left to its lease and this process ends", execution_id=message.execution_id
            )
            raise SystemExit(EXIT_UNFIT) from failure
        else:
            if isolation.is_unfit:
                structlog.get_logger().warning("this process ends: it cannot be put back as it was before an agent")
                raise SystemExit(EXIT_UNFIT)
