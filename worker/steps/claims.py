"""Claims what a bell names: loads, decides, and takes the step by one filtered write that one of many can win."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import structlog

from shared.bootstrap import Services
from shared.domain.execution import Execution
from shared.domain.lifecycle.transitions import claim
from shared.ids import new_token
from shared.queue.message import TaskMessage
from shared.store.executions.settle import retry_until_answered, settle
from worker.steps.agent_runner import ClaimedStep
from worker.steps.pending_writes import PendingWrites
from worker.supervision.step_interrupter import StepInterrupter

ClaimResult = tuple[ClaimedStep, PendingWrites]


class Claims:
    """Claims steps, one at a time; while the worker drains it claims none."""

    def __init__(self, services: Services, minder: StepInterrupter, write_delay_max_s: float) -> None:
        self._services = services
        self._store = services.store
        self._interrupter = minder
        self._write_delay_max_s = write_delay_max_s

    def claim(self, message: TaskMessage) -> ClaimResult | None:
        """Load and claim what ``bell`` names; None where there is nothing to run here."""
        execution = retry_until_answered(
            partial(self._store.load, message.integrator, message.execution_id), lambda: self._interrupter.is_draining
        )
        if execution is None:
            structlog.get_logger().warning("a bell names an execution that is not there")
            return None
        if self._interrupter.is_draining:
            self._services.publisher.redeliver(execution, message)
            return None
        return self.claim_loaded(execution, message, new_token())

    def claim_loaded(self, execution: Execution, message: TaskMessage, token: str) -> ClaimResult | None:
        """Claim on what was loaded; a claim by the same ``token`` that may have been written already is known again."""
        settled = settle(
            self._store,
            execution,
            lambda seen: claim(seen, message.step, token, self._now(), self._services.timings),
            is_own_write=lambda seen: seen.steps[message.step].token == token,
            give_up=lambda: self._interrupter.is_draining,
        )
        if settled is None:
            structlog.get_logger().debug("there is nothing to claim")
            return None
        # The claim's own line waits for the first write that is told to Redis.
        told = max(settled.record.lines_total - len(settled.decision.events), 0)
        if settled.decision.next_step is None:  # past a deadline: the run has ended instead
            self._services.publisher.publish_decision(
                settled.record, settled.decision, as_of=settled.as_of, published_seq=told
            )
            return None
        claimed = settled.record.execution
        lease = claimed.lease_of(message.step)
        draft = PendingWrites(
            self._services, settled.record, lease,
            published_seq=told,
            give_up=lambda: self._interrupter.is_drain_over,
            write_delay_max_s=self._write_delay_max_s,
        )  # fmt: skip
        return ClaimedStep(claimed, lease, {}), draft

    def _now(self) -> datetime:
        return self._services.clock.now()
