"""Reads executions from MongoDB for replies: as a majority has them, with the large outputs that a poll must show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import redis
import structlog

from shared.bootstrap import Services
from shared.domain.execution import NEWEST_LOG_LINES, PUBLIC_INTEGRATOR, ExecutionRecord, LogPageQuery
from shared.errors import ExecutionExpired, ExecutionNotFound, InternalError
from shared.ids import EXECUTION_ID_PATTERN, created_at_of
from shared.live.redis_monitor import RedisMonitor
from shared.live.render import render, result_steps

T = TypeVar("T")


class ExecutionReader:
    """Reads and renders executions, and knows how long they are kept."""

    def __init__(self, services: Services, monitor: RedisMonitor) -> None:
        self._services = services
        self._monitor = monitor

    def read(
        self,
        execution_id: str,
        *,
        outputs: Iterable[str] = (),
        page: LogPageQuery | None = None,
        causal: bool = False,
        min_rev: int = 0,
    ) -> ExecutionRecord:
        """Return a run with those of its large ``outputs``; raises ExecutionNotFound or ExecutionExpired.

        ``newest`` waits until a majority has what the primary has. So does a read that finds nothing, or a revision
        below ``min_rev``, which the caller has seen: a primary just elected serves older majority data for a moment.
        """
        read = partial(self._services.store.read, PUBLIC_INTEGRATOR, execution_id, outputs=tuple(outputs), page=page)
        record = read(causal=causal)
        if not causal and (record is None or record.execution.rev < min_rev):
            record = read(causal=True)
        if record is None:
            self.check_not_expired(execution_id)
            raise ExecutionNotFound(f"execution {execution_id!r} was not found")
        return record

    def check_not_expired(self, execution_id: str) -> None:
        """Raise ExecutionExpired for the id of a run that is older than runs are kept."""
        days = self._services.settings.retention_days
        now = self._services.clock.now_or_none()
        if days is not None and now is not None and now - created_at_of(execution_id) > timedelta(days=days):
            kept = "1 day" if days == 1 else f"{days} days"
            raise ExecutionExpired(f"execution {execution_id} is gone: runs are kept for {kept}; ask no more for it")

    def render(self, record: ExecutionRecord, page: LogPageQuery = NEWEST_LOG_LINES) -> bytes:
        """Return the rendered poll of ``record``; large outputs that its result needs are read too."""
        missing = set(result_steps(record.execution)) - set(record.outputs)
        if missing:
            whole = self.read(record.execution.id, outputs=missing, page=page, min_rev=record.execution.rev)
            record = replace(record, outputs=whole.outputs)
        view = render(record, page)
        if view is None:
            raise InternalError(f"an output of {record.execution.id} is not where it was kept")
        return view

    def try_redis(self, read: Callable[[], T]) -> T | None:
        """Return what ``read`` finds in Redis; None if Redis does not reply."""
        if not self._monitor.last.is_connected:
            return None  # known to be away: waiting for it would make each poll slow
        try:
            return read()
        except redis.RedisError as away:
            structlog.get_logger().warning("Redis did not answer a poll", reason=str(away))
            return None


def check_execution_id(execution_id: str) -> None:
    """Raise ExecutionNotFound for what cannot be an id: it never reaches a store."""
    if execution_id == "None":
        raise ExecutionNotFound(
            "execution 'None' was not found: the submit was refused and gave no id; look at its status and detail"
        )
    if not EXECUTION_ID_PATTERN.fullmatch(execution_id):
        raise ExecutionNotFound(f"execution {execution_id[:64]!r} was not found: this is no id that Bucket made")
