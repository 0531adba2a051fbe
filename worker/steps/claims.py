"""Claims the step that a message names: load, decide, and one filtered write, which only one worker can win."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Execution, Lease, Step
from shared.domain.lifecycle.transitions import claim
from shared.ids import new_token
from shared.queue.message import TaskMessage
from shared.store.executions.settle import retry_until_reply, settle
from worker.steps.pending_writes import PendingWrites
from worker.steps.report_buffer import ReportBuffer
from worker.supervision.step_interrupter import StepInterrupter


@dataclass(frozen=True, slots=True)
class ClaimedStep:
    """One claimed step, the outputs that are at hand (by step id), and when it began (seconds since boot)."""

    execution: Execution
    lease: Lease
    pending_writes: PendingWrites
    reporter: ReportBuffer
    outputs: Mapping[str, Mapping[str, Any]]
    began_at: float = field(default_factory=boottime_s)

    @property
    def step(self) -> Step:
        """The step as it was claimed."""
        return self.execution.steps[self.lease.step]

    @property
    def timeout_s(self) -> float:
        """How long the step may take."""
        return self.execution.basket.step(self.lease.step).timeout_s


class Claims:
    """Claims steps, one at a time; while the worker drains it claims none and sends messages again."""

    def __init__(self, services: Services, interrupter: StepInterrupter) -> None:
        self._services = services
        self._store = services.store
        self._clock = services.clock
        self._interrupter = interrupter

    def claim(self, message: TaskMessage) -> ClaimedStep | None:
        """Load and claim the step that ``message`` names; None if there is nothing to run here."""
        load = partial(self._store.load, message.integrator, message.execution_id)
        execution = retry_until_reply(load, lambda: self._interrupter.is_draining)
        if execution is None:
            structlog.get_logger().warning("a message names an execution that does not exist")
            return None
        if self._interrupter.is_draining:
            self._services.publisher.redeliver(execution, message)
            return None
        return self.claim_loaded(execution, message, new_token())

    def claim_loaded(self, execution: Execution, message: TaskMessage, token: str) -> ClaimedStep | None:
        """Claim a step of a loaded execution; None if there is nothing to run here.

        A claim by the same ``token`` that was already written is recognised as our own.
        """
        settled = settle(
            self._store,
            execution,
            lambda execution: claim(execution, message.step, token, self._clock.now(), self._services.timings),
            is_own_write=lambda execution: execution.steps[message.step].token == token,
            give_up=lambda: self._interrupter.is_draining,
        )
        if settled is None:
            structlog.get_logger().debug("there is nothing to claim")
            return None
        record = settled.record
        # The claim's own log line waits for the first write that is published.
        published_seq = max(record.lines_total - len(settled.decision.events), 0)
        if settled.decision.next_step is None:  # past a deadline: the run has ended instead
            self._services.publisher.publish_decision(
                record, settled.decision, as_of=settled.save_started_at_s, published_seq=published_seq
            )
            return None
        lease = record.execution.lease_of(message.step)
        pending_writes = PendingWrites(
            self._services, record, lease, published_seq=published_seq, give_up=lambda: self._interrupter.is_drain_over
        )
        return self.begin_step(pending_writes, message.step, {})

    def begin_step(
        self, pending_writes: PendingWrites, step_id: str, outputs: Mapping[str, Mapping[str, Any]]
    ) -> ClaimedStep:
        """Begin a step that this worker has claimed, by a stored or a pending write; ``outputs`` are at hand."""
        execution = pending_writes.execution
        reporter = ReportBuffer(execution.steps[step_id].agent, step_id, self._log_time)
        return ClaimedStep(execution, execution.lease_of(step_id), pending_writes, reporter, outputs)

    def _log_time(self) -> datetime:
        """Return the time for a log line of an agent, without waiting for a store that is away."""
        return self._clock.now_or_none() or self._clock.now()
