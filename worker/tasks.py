"""Registers the Celery task that runs steps under its wire name; no failure of a step ends the worker's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery

from shared.queue.message import RUN_STEP_TASK, message_from_args
from shared.store.executions.dead_letter_store import DeadLetterStore
from worker.steps.runner import Runner
from worker.steps.unreadable_message import dead_letter_message


def register_task(app: Celery, get_runner: Callable[[], Runner], dead_letters: DeadLetterStore) -> None:
    """Register the task in ``app``: each message goes to the runner of the process that receives it.

    A message that cannot be read becomes a dead letter.
    """

    @app.task(name=RUN_STEP_TASK, shared=False)  # type: ignore[untyped-decorator]
    def run_step(*args: Any, **unknown: Any) -> None:
        try:
            message = message_from_args(*args, **unknown)
        except (TypeError, ValueError, OverflowError):
            dead_letter_message(dead_letters, repr((args, unknown)))
            return
        try:
            get_runner().run_message_and_backlog(message)
        except BaseException:  # noqa: BLE001
            # A BaseException that reaches Celery ends its main process, and the redelivered message ends the next one.
            # Instead the step's lease runs out, and the reconciler offers it again.
            structlog.get_logger().exception("a step was left to its lease", execution_id=message.execution_id)
