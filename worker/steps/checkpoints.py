"""A step's checkpoints, as its agent makes and reads them: stored before ``checkpoint()`` returns, or it raises."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import orjson

from shared.bootstrap import Services
from shared.domain.execution import Execution
from shared.errors import LeaseLost
from shared.store.executions.checkpoint_store import is_stored_externally
from shared.store.executions.settle import retry_until_answered
from worker.steps.outcome_checks import NotJson, to_json
from worker.steps.pending_writes import PendingWrites
from worker.supervision.step_interrupter import RunningStep, StepInterrupter

CHECKPOINT_MAX_BYTES: Final = 4 * 1024 * 1024


class StepCheckpoints:
    """Those of one attempt; while the store is asked, no interrupt comes, and a step asked to stop waits no longer."""

    def __init__(
        self,
        services: Services,
        execution: Execution,
        draft: PendingWrites,
        *,
        minder: StepInterrupter,
        minded: RunningStep,
    ) -> None:
        self._store = services.checkpoints
        self._execution = execution
        self._lease = minded.lease
        self._pending_writes = draft
        self._interrupter = minder
        self._running_step = minded
        self._saved_count = 0

    def save(self, state: dict[str, Any]) -> None:
        """Store ``state`` by the lease.

        Raises ValueError for what no JSON stands for or takes over 4 MiB, LeaseLost where the step has moved on,
        and what the store raises where the step is asked to stop while it does not answer.
        """
        if not isinstance(state, dict):
            raise NotJson(f"a checkpoint must be an object, and this one is a {type(state).__name__}")
        written = to_json(state)
        if len(written) > CHECKPOINT_MAX_BYTES:
            raise ValueError(f"the checkpoint takes {len(written)} bytes; at most {CHECKPOINT_MAX_BYTES} are kept")
        with self._interrupter.uninterruptible(self._running_step):
            try:
                self._pending_writes.write()  # a checkpoint goes by the lease, which may not be stored yet
                self._save(written)
            except LeaseLost:
                self._interrupter.request_stop(self._running_step, "lost")
                raise

    def latest(self) -> dict[str, Any] | None:
        """Answer the newest checkpoint of the step, of whichever attempt; None where there is none."""
        if self._lease.claim == 1 and not self._saved_count:
            return None  # nobody can have made one
        self._pending_writes.steps_with_checkpoints.add(self._lease.step)
        with self._interrupter.uninterruptible(self._running_step):
            kept = retry_until_answered(partial(self._store.newest, self._lease), self._should_stop)
        state: dict[str, Any] | None = None if kept is None else orjson.loads(kept)
        return state

    def _save(self, written: bytes) -> None:
        self._saved_count += 1
        apart = is_stored_externally(self._execution, written)
        if apart:
            self._pending_writes.steps_with_checkpoints.add(self._lease.step)
        keep = partial(self._store.keep, self._lease, self._saved_count, written, apart=apart)
        if not retry_until_answered(keep, self._should_stop):
            raise LeaseLost(f"step {self._lease.step} of {self._lease.execution_id} has moved on")

    def _should_stop(self) -> bool:
        return self._running_step.cancel.is_set() or self._interrupter.is_drain_over
