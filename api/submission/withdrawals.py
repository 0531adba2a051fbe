"""Withdrawals (compensation): takes back inserts of unknown outcome by a tombstone, in a thread of its own.

Only runs without an idempotency key: their callers could never find them.
"""

from __future__ import annotations

import queue
import time
from functools import partial
from typing import Final

import structlog

from shared.bootstrap import Services
from shared.domain.execution import Execution
from shared.store.executions.settle import retry_until_reply

_QUEUE_MAX: Final = 10_000
_RETRY_WITHIN_S: Final = 0.2


class Withdrawals:
    """The queue of runs to withdraw, and the loop that withdraws them as soon as MongoDB replies."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._database = services.database
        self._queue: queue.Queue[Execution] = queue.Queue(_QUEUE_MAX)

    def add(self, run: Execution) -> None:
        """Withdraw ``run`` later: its insert got no reply, and it has no idempotency key to find it by."""
        try:
            self._queue.put_nowait(run)
        except queue.Full:
            structlog.get_logger().error(
                "the queue of withdrawals is full: an insert of unknown outcome is not withdrawn", execution_id=run.id
            )

    def run(self) -> None:
        """Withdraw the added runs, one after the other, for ever."""
        while True:
            self._withdraw(self._queue.get())

    def _withdraw(self, run: Execution) -> None:
        log = structlog.get_logger().bind(execution_id=run.id, request_id=run.request_id)
        withdraw = partial(self._store.withdraw, run.integrator, run.id)
        while self._database.is_away:
            time.sleep(_RETRY_WITHIN_S)  # neither a try nor a log line while MongoDB is still away
        try:
            withdrawn = retry_until_reply(withdraw, give_up=lambda: False, wait_max_s=_RETRY_WITHIN_S)
        except Exception:
            log.exception("an insert was not taken back")
            return
        log.info("an insert was taken back", withdrawn=withdrawn)
