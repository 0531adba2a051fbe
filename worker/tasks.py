"""Binds the wire name to the runner; nothing that happens in a step ends the worker's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery

from shared.queue.message import RUN_STEP, bell_of
from shared.store.executions.dead_letter_store import DeadLetters
from worker.steps.runner import Runner
from worker.steps.unreadable_message import drop


def bind(app: Celery, runner: Callable[[], Runner], dead_letters: DeadLetters) -> None:
    """Make ``app`` answer bells with the runner of the process that a bell comes to; what is none is kept apart."""

    @app.task(name=RUN_STEP, shared=False)  # type: ignore[untyped-decorator]
    def run_step(*args: Any, **unknown: Any) -> None:
        try:
            bell = bell_of(*args, **unknown)
        except (TypeError, ValueError, OverflowError):
            drop(dead_letters, repr((args, unknown)))
            return
        try:
            runner().serve(bell)
        except BaseException:  # noqa: BLE001
            # A BaseException that reaches Celery ends its main process, and the returned message the next one.
            # The step's lease runs out, and the reconciler offers it again.
            structlog.get_logger().exception("a step was left to its lease", execution_id=bell.execution_id)
