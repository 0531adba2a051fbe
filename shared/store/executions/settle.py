"""Decide, save, and where somebody wrote first decide again: the only way an execution changes after its start."""

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
from shared.store.executions.port import ExecutionStore

T = TypeVar("T")
_BACKOFF_S: Final = 0.01
_BACKOFF_MAX_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class SettleResult:
    """A decision that stands, and the record as it was written, asked for at ``as_of`` (seconds since boot)."""

    record: ExecutionRecord
    decision: Decision
    as_of: float


def settle(
    store: ExecutionStore,
    execution: Execution,
    decide: Callable[[Execution], Decision | None],
    *,
    lease: Lease | None = None,
    is_own_write: Callable[[Execution], bool] = lambda _: False,
    give_up: Callable[[], bool] = lambda: False,
) -> SettleResult | None:
    """Save what ``decide`` makes of ``execution``; None where it decides nothing, or the execution is gone.

    ``decide`` must be pure: whenever somebody wrote first it is asked again with a fresh load. The somebody may
    have been this very save, whose answer was lost; ``is_mine`` tells by the token. Errors of the store are
    borne as :func:`until_answered` does; LeaseLost of ``decide`` passes.
    """
    pauses = _backoff_delays_s()
    while (advance := decide(execution)) is not None:
        as_of = boottime_s()
        save = partial(store.save, execution, advance, lease=lease)
        try:
            return SettleResult(retry_until_answered(save, give_up), advance, as_of)
        except StaleWrite:
            time.sleep(next(pauses))
        found = retry_until_answered(partial(store.load, execution.integrator, execution.id), give_up)
        while found is not None and is_own_write(found):
            # Our own write, whose answer was lost. A claim is a lock; all else must be a majority's to leave here.
            if advance.is_lock_only:
                return SettleResult(ExecutionRecord(found), advance, as_of)
            as_of = boottime_s()
            whole = retry_until_answered(partial(store.read, found.integrator, found.id, outputs=()), give_up)
            if whole is not None and is_own_write(whole.execution):
                return SettleResult(whole, advance, as_of)
            time.sleep(next(pauses))
            found = retry_until_answered(partial(store.load, found.integrator, found.id), give_up)
        if found is None:
            return None
        execution = found
    return None


def _backoff_delays_s() -> Iterator[float]:
    """Short waits with full jitter, doubling, or siblings that met once would meet again."""
    pause_s = _BACKOFF_S
    while True:
        yield random.uniform(0, pause_s)  # noqa: S311
        pause_s = min(pause_s * 2, _BACKOFF_MAX_S)


def retry_until_answered(operation: Callable[[], T], give_up: Callable[[], bool], *, wait_max_s: float = 1.0) -> T:
    """Repeat ``ask`` until the store accepts or refuses it; raise its error only once ``give_up`` says so.

    Right only for what may be repeated: reads, and writes whose filter makes the second time harmless.
    """

    def is_away(error: Exception) -> bool:
        return isinstance(error, (Unavailable, OutcomeUnknown)) and not give_up()

    try:
        return operation()  # nearly always: what repeats need is not built for it
    except (Unavailable, OutcomeUnknown) as away:
        if not is_away(away):
            raise
    for attempt in stamina.retry_context(
        on=is_away, attempts=None, timeout=None, wait_initial=0.05, wait_max=wait_max_s, wait_jitter=wait_max_s / 2
    ):
        with attempt:
            return operation()
    raise AssertionError("stamina ended without an answer or an error")
