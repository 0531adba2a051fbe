"""Loads the runs that messages name: from the copy that the accept left in Redis, else from MongoDB, by one read.

A copy may be older than what is stored: it is removed when the next view of its run is put, which Redis may miss, or an
API process that stood still puts it late. Then the filter of the first write refuses what was decided on it. What has
begun before that write was an idempotent agent.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis
import structlog

from shared.bootstrap import Services
from shared.domain.execution import ExecutionRecord
from shared.errors import BucketError
from shared.queue.message import TaskMessage
from shared.store.executions.documents import decode_new_document


class RunLoader:
    """Loads executions for the runner's thread."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def load(self, messages: Sequence[TaskMessage], copies: Sequence[bytes] | None) -> dict[str, ExecutionRecord]:
        """Return the records, by id, of the runs that ``messages`` name for the integrator of the first of them.

        ``copies`` are those that came with the messages; None if none were asked for. What cannot be loaded is left
        out, with a warning in the log: its message is then handled alone.
        """
        integrator = messages[0].integrator
        execution_ids = [message.execution_id for message in messages if message.integrator == integrator]
        loaded = self._decode_copies(integrator, self._copies(execution_ids) if copies is None else copies)
        missing = [execution_id for execution_id in execution_ids if execution_id not in loaded]
        if missing:
            try:
                records = self._services.bulk.load_all(integrator, missing)
            except BucketError as error:
                structlog.get_logger().warning("messages are run one by one", reason=error.message)
            else:
                loaded |= {record.execution.id: record for record in records}
        return loaded

    def _copies(self, execution_ids: Sequence[str]) -> Sequence[bytes]:
        try:
            return self._services.views.copies(execution_ids)
        except redis.RedisError as error:
            structlog.get_logger().warning("runs are read from the store", reason=str(error))
            return ()

    def _decode_copies(self, integrator: str, copies: Sequence[bytes]) -> dict[str, ExecutionRecord]:
        try:
            records = [decode_new_document(copy) for copy in copies]
        except ValueError as error:  # a copy of another release, during an upgrade
            structlog.get_logger().warning("copies of runs cannot be read", reason=str(error))
            return {}
        return {record.execution.id: record for record in records if record.execution.integrator == integrator}
