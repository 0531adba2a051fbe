"""Decide, save, and where somebody wrote first decide again: the only way an execution changes after its start."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import stamina

from shared.domain.execution import Execution, Lease, Record
from shared.domain.life import Advance
from shared.errors import OutcomeUnknown, StaleWrite, Unavailable
from shared.store.port import ExecutionStore

T = TypeVar("T")
_PAUSE_S: Final = 0.01
_PAUSE_MAX_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Settled:
    """A decision that stands, and the record as it was written."""

    record: Record
    advance: Advance


def settle(
    store: ExecutionStore,
    execution: Execution,
    decide: Callable[[Execution], Advance | None],
    *,
    lease: Lease | None = None,
    lock_only: bool = False,
    is_mine: Callable[[Execution], bool] = lambda _: False,
    give_up: Callable[[], bool] = lambda: False,
) -> Settled | None:
    """Save what ``decide`` makes of ``execution``; None where it decides nothing, or the execution is gone.

    ``decide`` must be pure: whenever somebody wrote first it is asked again with a fresh load. The somebody may
    have been this very save, whose answer was lost; ``is_mine`` tells by the token. Errors of the store are
    borne as :func:`until_answered` does; LeaseLost of ``decide`` passes.
    """
    pause_s = _PAUSE_S
    while (advance := decide(execution)) is not None:
        decision = advance
        loaded = execution
        try:
            record = until_answered(
                lambda: store.save(loaded, decision, lease=lease, lock_only=lock_only),  # noqa: B023
                give_up,
            )
        except StaleWrite:
            time.sleep(random.uniform(0, pause_s))  # noqa: S311  (jitter, or siblings meet again)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)
        else:
            return Settled(record, decision)
        found = until_answered(lambda: store.load(loaded.integrator, loaded.id), give_up)  # noqa: B023
        if found is None:
            return None
        if is_mine(found):
            whole = until_answered(lambda: store.read(loaded.integrator, loaded.id, outputs=()), give_up)  # noqa: B023
            return None if whole is None else Settled(whole, decision)
        execution = found
    return None


def until_answered(ask: Callable[[], T], give_up: Callable[[], bool] = lambda: False) -> T:
    """Repeat ``ask`` until the store accepts or refuses it; raise its error only once ``give_up`` says so.

    Right only for what may be repeated: reads, and writes whose filter makes the second time harmless.
    """

    def is_away(error: Exception) -> bool:
        return isinstance(error, (Unavailable, OutcomeUnknown)) and not give_up()

    for attempt in stamina.retry_context(on=is_away, attempts=None, timeout=None, wait_initial=0.05, wait_max=1.0):
        with attempt:
            return ask()
    raise AssertionError("stamina ended without an answer or an error")
