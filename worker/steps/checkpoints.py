"""Checkpoints of a step, which its agent writes and reads: when ``checkpoint()`` returns, the state is stored."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import orjson

from shared.errors import BucketError, LeaseLost
from shared.store.executions.checkpoint_store import MongoCheckpointStore, is_stored_externally
from shared.store.executions.settle import retry_until_reply
from shared.store.executions.store import MongoExecutionStore
from worker.steps.claims import ClaimedStep
from worker.steps.outcome_checks import NotJson, to_json
from worker.steps.protection.step_protection import StepProtection
from worker.supervision.step_interrupter import RunningStep, StepInterrupter

CHECKPOINT_MAX_BYTES: Final = 4 * 1024 * 1024


def checkpoint_to_json(state: Any) -> bytes:
    """Return a checkpoint as JSON; raises ValueError if it is no object, not JSON, or has over 4 MiB."""
    if not isinstance(state, dict):
        raise NotJson(f"a checkpoint must be an object, and this one is a {type(state).__name__}")
    state_json = to_json(state)
    if len(state_json) > CHECKPOINT_MAX_BYTES:
        raise ValueError(f"the checkpoint takes {len(state_json)} bytes; at most {CHECKPOINT_MAX_BYTES} are kept")
    return state_json


class StepCheckpoints:
    """Checkpoints of one attempt.

    During a call to the store no interrupt comes. If the step is asked to stop, it no longer waits for the store.
    """

    def __init__(
        self,
        store: MongoCheckpointStore,
        executions: MongoExecutionStore,
        claimed_step: ClaimedStep,
        interrupter: StepInterrupter,
        running_step: RunningStep,
        *,
        protection: StepProtection,
    ) -> None:
        self._store = store
        self._executions = executions
        self._reporter = claimed_step.reporter
        self._execution = claimed_step.execution
        self._lease = claimed_step.lease
        self._pending_writes = claimed_step.pending_writes
        self._interrupter = interrupter
        self._running_step = running_step
        self._protection = protection
        self._saved_count = 0

    def save(self, state: dict[str, Any]) -> None:
        """Store ``state``, filtered by the lease.

        Raises ValueError if ``state`` is not JSON or has over 4 MiB, and LeaseLost if the step has moved on. Raises the
        store's error if the step is asked to stop while the store does not reply.
        """
        state_json = checkpoint_to_json(state)
        with self._interrupter.uninterruptible(self._running_step):
            try:
                self._pending_writes.write()  # a checkpoint is filtered by the lease, which may not be stored yet
                self._send_report()
                self._save(state_json)
            except LeaseLost:
                self._interrupter.request_stop(self._running_step, "lost")
                raise

    def latest(self) -> dict[str, Any] | None:
        """Return the newest checkpoint of the step, from any attempt or the run that is retried; None without one."""
        if self._lease.claim == 1 and not self._saved_count and self._execution.effects_of is None:
            return None  # there was no earlier attempt that could have made one
        self._pending_writes.steps_with_checkpoints.add(self._lease.step)
        with self._interrupter.uninterruptible(self._running_step):
            stored = retry_until_reply(partial(self._store.load_newest, self._lease), self._should_stop)
        if stored is None:
            return None
        state: dict[str, Any] = orjson.loads(
            self._protection.open_checkpoint(self._execution, self._lease.step, stored)
        )
        return state

    def _send_report(self) -> None:
        """Store the log lines and the progress so far: the checkpoint outlives this process, and so must they."""
        report = self._reporter.take_report()
        if report.is_empty:
            return
        try:
            record = retry_until_reply(partial(self._executions.report, self._lease, report), self._should_stop)
        except BucketError:
            self._reporter.restore_report(report)
            raise
        if record is None:
            raise LeaseLost(f"step {self._lease.step} of {self._lease.execution_id} has moved on")
        self._pending_writes.reports_stored += 1

    def _save(self, state_json: bytes) -> None:
        self._saved_count += 1
        state_json = self._protection.seal_checkpoint(self._execution, self._lease.step, state_json)
        is_external = is_stored_externally(self._execution, state_json)
        if is_external:
            self._pending_writes.steps_with_checkpoints.add(self._lease.step)
        save = partial(self._store.save, self._lease, self._saved_count, state_json, is_external=is_external)
        if not retry_until_reply(save, self._should_stop):
            raise LeaseLost(f"step {self._lease.step} of {self._lease.execution_id} has moved on")

    def _should_stop(self) -> bool:
        return self._running_step.cancel.is_set() or self._interrupter.is_drain_over
