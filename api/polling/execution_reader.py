"""Reads executions from MongoDB with majority read concern, with the large outputs that a poll must show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import redis
import structlog

from shared.bootstrap import Services
from shared.domain.access.caller import Scope
from shared.domain.execution import NEWEST_LOG_LINES, ExecutionRecord, LogPageQuery
from shared.errors import ExecutionExpired, ExecutionNotFound, InternalError
from shared.ids import EXECUTION_ID_PATTERN, created_at_of
from shared.live.redis_monitor import RedisMonitor
from shared.live.render import render, result_steps

T = TypeVar("T")


class ExecutionReader:
    """Reads and renders executions, and checks whether their retention period is over."""

    def __init__(self, services: Services, monitor: RedisMonitor) -> None:
        self._services = services
        self._monitor = monitor

    def integrator_of(self, scope: Scope, execution_id: str) -> str:
        """Return the integrator in whose name a run is looked up: the scope itself, or for None the run's own.

        Only the latter reads MongoDB, and raises ExecutionNotFound or ExecutionExpired.
        """
        if scope is not None:
            return scope
        found = self._services.queries.find_integrator(execution_id)
        return found or self.read(None, execution_id, causal=True).execution.integrator

    def read(
        self,
        scope: Scope,
        execution_id: str,
        *,
        outputs: Iterable[str] = (),
        page: LogPageQuery | None = None,
        causal: bool = False,
        min_rev: int = 0,
    ) -> ExecutionRecord:
        """Return a run of ``scope`` with those of its large ``outputs``; raises ExecutionNotFound or ExecutionExpired.

        A run of another integrator is not found, in the same way as one that does not exist.

        ``causal`` reads in a causal session, which waits until a majority has what the primary has. A read that finds
        nothing, or a revision below ``min_rev`` (one that the caller has seen), is repeated in that way: a primary that
        was just elected serves older majority data for a moment.
        """
        read = partial(self._services.store.read, scope, execution_id, outputs=tuple(outputs), page=page)
        record = read(causal=causal)
        if not causal and (record is None or record.execution.rev < min_rev):
            record = read(causal=True)
        if record is None:
            self.check_not_expired(execution_id)
            raise ExecutionNotFound(f"execution {execution_id!r} was not found")
        return record

    def check_not_expired(self, execution_id: str) -> None:
        """Raise ExecutionExpired for the id of a run that is older than the retention period."""
        days = self._services.settings.retention_days
        now = self._services.clock.now_or_none()
        if days is not None and now is not None and now - created_at_of(execution_id) > timedelta(days=days):
            lifetime = "1 day" if days == 1 else f"{days} days"
            raise ExecutionExpired(
                f"execution {execution_id} is gone: runs are kept for {lifetime}; ask no more for it"
            )

    def render(self, record: ExecutionRecord, page: LogPageQuery = NEWEST_LOG_LINES) -> bytes:
        """Return the rendered view of ``record``; large outputs that its result needs are read too."""
        missing = set(result_steps(record.execution)) - set(record.outputs)
        if missing:
            run = record.execution
            complete = self.read(run.integrator, run.id, outputs=missing, page=page, min_rev=run.rev)
            record = replace(record, outputs=complete.outputs)
        view = render(record, page)
        if view is None:
            raise InternalError(f"an output of {record.execution.id} is not where it was kept")
        return view

    def try_redis(self, read: Callable[[], T]) -> T | None:
        """Return the result of ``read``, which reads Redis; None if Redis is away or does not reply."""
        if not self._monitor.last.is_connected:
            return None  # known to be away: waiting for it would make each poll slow
        try:
            return read()
        except redis.RedisError as error:
            structlog.get_logger().warning("Redis did not reply to a poll", reason=str(error))
            return None


def check_execution_id(execution_id: str) -> None:
    """Raise ExecutionNotFound if the text cannot be an id, so that it never reaches a store."""
    if execution_id == "None":
        raise ExecutionNotFound(
            "execution 'None' was not found: the submit was refused and gave no id; look at its status and detail"
        )
    if not EXECUTION_ID_PATTERN.fullmatch(execution_id):
        raise ExecutionNotFound(f"execution {execution_id[:64]!r} was not found: this is no id that Bucket made")
