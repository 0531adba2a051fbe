"""Claims the step that a message names: load, decide, and one filtered write, which only one worker can win."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import structlog

from shared.bootstrap import Services
from shared.domain.execution import Execution
from shared.domain.lifecycle.transitions import claim
from shared.ids import new_token
from shared.queue.message import TaskMessage
from shared.store.executions.settle import retry_until_reply, settle
from worker.steps.agent_runner import ClaimedStep
from worker.steps.pending_writes import PendingWrites
from worker.supervision.step_interrupter import StepInterrupter

ClaimResult = tuple[ClaimedStep, PendingWrites]


class Claims:
    """Claims steps, one at a time; while the worker drains it claims none and sends messages again."""

    def __init__(self, services: Services, interrupter: StepInterrupter, write_delay_max_s: float) -> None:
        self._services = services
        self._store = services.store
        self._interrupter = interrupter
        self._write_delay_max_s = write_delay_max_s

    def claim(self, message: TaskMessage) -> ClaimResult | None:
        """Load and claim the step that ``message`` names; None if there is nothing to run here."""
        execution = retry_until_reply(
            partial(self._store.load, message.integrator, message.execution_id), lambda: self._interrupter.is_draining
        )
        if execution is None:
            structlog.get_logger().warning("a message names an execution that does not exist")
            return None
        if self._interrupter.is_draining:
            self._services.publisher.redeliver(execution, message)
            return None
        return self.claim_loaded(execution, message, new_token())

    def claim_loaded(self, execution: Execution, message: TaskMessage, token: str) -> ClaimResult | None:
        """Claim a step of a loaded execution; None if there is nothing to run here.

        A claim by the same ``token`` that was already written is recognised as our own.
        """
        settled = settle(
            self._store,
            execution,
            lambda execution: claim(execution, message.step, token, self._now(), self._services.timings),
            is_own_write=lambda execution: execution.steps[message.step].token == token,
            give_up=lambda: self._interrupter.is_draining,
        )
        if settled is None:
            structlog.get_logger().debug("there is nothing to claim")
            return None
        # The claim's own log line waits for the first write that is published.
        published_seq = max(settled.record.lines_total - len(settled.decision.events), 0)
        if settled.decision.next_step is None:  # past a deadline: the run has ended instead
            self._services.publisher.publish_decision(
                settled.record, settled.decision, as_of=settled.save_started_at_s, published_seq=published_seq
            )
            return None
        claimed = settled.record.execution
        lease = claimed.lease_of(message.step)
        pending_writes = PendingWrites(
            self._services, settled.record, lease,
            published_seq=published_seq,
            give_up=lambda: self._interrupter.is_drain_over,
            write_delay_max_s=self._write_delay_max_s,
        )  # fmt: skip
        return ClaimedStep(claimed, lease, {}), pending_writes

    def _now(self) -> datetime:
        return self._services.clock.now()
