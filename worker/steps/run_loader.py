"""Loads the runs that messages name: from the copy that the accept left in Redis, else from MongoDB.

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

RunKey = tuple[str, str]
"""The integrator and the id of a run."""


class RunLoader:
    """Loads executions for the runner's thread."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def load(self, messages: Sequence[TaskMessage], copies: Sequence[bytes] | None) -> dict[RunKey, ExecutionRecord]:
        """Return the records of the runs that ``messages`` name, by integrator and id.

        ``copies`` are those that came with the messages; None if none were asked for. Runs without one are read, those
        of one integrator at once. What cannot be loaded is left out, with a warning in the log: its message is then
        handled alone.
        """
        wanted = dict.fromkeys((message.integrator, message.execution_id) for message in messages)
        if copies is None:
            copies = self._copies([execution_id for _, execution_id in wanted])
        loaded = {key: record for key, record in _decode_copies(copies) if key in wanted}
        missing: dict[str, list[str]] = {}
        for integrator, execution_id in wanted:
            if (integrator, execution_id) not in loaded:
                missing.setdefault(integrator, []).append(execution_id)
        try:
            for integrator, execution_ids in missing.items():
                records = self._services.bulk.load_all(integrator, execution_ids)
                loaded |= {_key_of(record): record for record in records}
        except BucketError as error:
            structlog.get_logger().warning("messages are run one by one", reason=error.message)
        return loaded

    def _copies(self, execution_ids: Sequence[str]) -> Sequence[bytes]:
        try:
            return self._services.views.copies(execution_ids)
        except redis.RedisError as error:
            structlog.get_logger().warning("runs are read from the store", reason=str(error))
            return ()


def _decode_copies(copies: Sequence[bytes]) -> Sequence[tuple[RunKey, ExecutionRecord]]:
    try:
        return [(_key_of(record), record) for record in map(decode_new_document, copies)]
    except ValueError as error:  # a copy of another release, during an upgrade
        structlog.get_logger().warning("copies of runs cannot be read", reason=str(error))
        return ()


def _key_of(record: ExecutionRecord) -> RunKey:
    return record.execution.integrator, record.execution.id
