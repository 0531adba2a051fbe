"""Optimistic concurrency loop with back-off: decide, save, and decide again if another writer was first.

This is the way in which a single decision is saved (docs/engine.md, section 1).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import stamina

from shared.clock import boottime_s
from shared.domain.execution import Execution, ExecutionRecord, Lease
from shared.domain.lifecycle.decision import Decision
from shared.errors import OutcomeUnknown, StaleWrite, Unavailable
from shared.store.executions.store import MongoExecutionStore

T = TypeVar("T")
_BACKOFF_S: Final = 0.01
_BACKOFF_MAX_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class SettleResult:
    """The decision that was saved, the record as it was written, and when the save began, in seconds since boot."""

    record: ExecutionRecord
    decision: Decision
    save_started_at_s: float


def settle(
    store: MongoExecutionStore,
    execution: Execution,
    decide: Callable[[Execution], Decision | None],
    *,
    lease: Lease | None = None,
    is_own_write: Callable[[Execution], bool] = lambda _: False,
    give_up: Callable[[], bool] = lambda: False,
) -> SettleResult | None:
    """Save the decision of ``decide`` on ``execution``; return None if it decides nothing or the execution is gone.

    ``decide`` must be pure: if another writer was first, it is called again with a fresh load, after a back-off with
    jitter. The other writer may have been this very save, if its reply was lost; ``is_own_write`` recognises it by
    the token. Errors of the store are repeated as :func:`retry_until_reply` does; LeaseLost of ``decide`` passes.
    """
    delays_s = _backoff_delays_s()
    while (decision := decide(execution)) is not None:
        as_of = boottime_s()
        save = partial(store.save, execution, decision, lease=lease)
        try:
            return SettleResult(retry_until_reply(save, give_up), decision, as_of)
        except StaleWrite:
            time.sleep(next(delays_s))
        current = retry_until_reply(partial(store.load, execution.integrator, execution.id), give_up)
        while current is not None and is_own_write(current):
            # Our own write, whose reply was lost. A claim is a lock; anything else must be read from a majority.
            if decision.is_lock_only:
                return SettleResult(ExecutionRecord(current), decision, as_of)
            as_of = boottime_s()
            record = retry_until_reply(partial(store.read, current.integrator, current.id, outputs=()), give_up)
            if record is not None and is_own_write(record.execution):
                return SettleResult(record, decision, as_of)
            time.sleep(next(delays_s))
            current = retry_until_reply(partial(store.load, current.integrator, current.id), give_up)
        if current is None:
            return None
        execution = current
    return None


def _backoff_delays_s() -> Iterator[float]:
    """Yield back-off delays: short, doubling, with full jitter, or siblings that met once would meet again."""
    delay_max_s = _BACKOFF_S
    while True:
        yield random.uniform(0, delay_max_s)  # noqa: S311
        delay_max_s = min(delay_max_s * 2, _BACKOFF_MAX_S)


def retry_until_reply(operation: Callable[[], T], give_up: Callable[[], bool], *, wait_max_s: float = 1.0) -> T:
    """Repeat ``operation`` with back-off until the store accepts or refuses it; raise its error if ``give_up`` is true.

    Only for operations that may be repeated: reads, and writes whose filter makes the second time harmless.
    """

    def is_away(error: Exception) -> bool:
        return isinstance(error, (Unavailable, OutcomeUnknown)) and not give_up()

    try:
        return operation()  # nearly always enough, so that the retry machinery is not built for it
    except (Unavailable, OutcomeUnknown):
        if give_up():
            raise
    for attempt in stamina.retry_context(
        on=is_away, attempts=None, timeout=None, wait_initial=0.05, wait_max=wait_max_s, wait_jitter=wait_max_s / 2
    ):
        with attempt:
            return operation()
    raise AssertionError("stamina ended without a result or an error")
