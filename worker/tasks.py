"""Binds the wire name to the runner; nothing that happens in a step ends the worker's process."""

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
    """Make ``app`` answer bells with the runner of the process that a bell comes to; what is none is kept apart."""

    @app.task(name=RUN_STEP_TASK, shared=False)  # type: ignore[untyped-decorator]
    def run_step(*args: Any, **unknown: Any) -> None:
        try:
            bell = message_from_args(*args, **unknown)
        except (TypeError, ValueError, OverflowError):
            dead_letter_message(dead_letters, repr((args, unknown)))
            return
        try:
            get_runner().run_message_and_backlog(bell)
        except BaseException:  # noqa: BLE001
            # A BaseException that reaches Celery ends its main process, and the returned message the next one.
            # The step's lease runs out, and the reconciler offers it again.
            structlog.get_logger().exception("a step was left to its lease", execution_id=bell.execution_id)
