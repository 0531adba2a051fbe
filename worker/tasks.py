"""Binds the wire name to the runner; nothing that happens in a step ends the worker's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery

from shared.queue.bell import RUN_STEP, bell_of
from worker.runner import Runner


def bind(app: Celery, runner: Callable[[], Runner]) -> None:
    """Make ``app`` answer bells with the runner of the process that a bell comes to."""

    @app.task(name=RUN_STEP, shared=False)  # type: ignore[untyped-decorator]
    def run_step(*args: Any) -> None:
        try:
            bell = bell_of(*args)
        except (TypeError, ValueError, OverflowError):
            structlog.get_logger().exception("a message is no bell and was dropped", message=str(args)[:200])
            return
        try:
            runner().serve(bell)
        except BaseException:  # noqa: BLE001
            # A BaseException that reaches Celery ends its main process, and the returned message the next one.
            # The step's lease runs out, and the reconciler offers it again.
            structlog.get_logger().exception("a step was left to its lease", execution_id=bell.execution_id)
