"""Claims what a bell names: loads, decides, and takes the step by one filtered write that one of many can win."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import structlog

from shared.bootstrap import Services
from shared.domain.execution import Execution
from shared.domain.lifecycle.transitions import claim
from shared.ids import new_token
from shared.queue.message import Bell
from shared.store.executions.settle import settle, until_answered
from worker.steps.agent_runner import Turn
from worker.steps.pending_writes import Draft
from worker.supervision.step_interrupter import Minder

Claimed = tuple[Turn, Draft]


class Claims:
    """Claims steps, one at a time; while the worker drains it claims none."""

    def __init__(self, services: Services, minder: Minder, unwritten_max_s: float) -> None:
        self._services = services
        self._store = services.store
        self._minder = minder
        self._unwritten_max_s = unwritten_max_s

    def claim(self, bell: Bell) -> Claimed | None:
        """Load and claim what ``bell`` names; None where there is nothing to run here."""
        execution = until_answered(
            partial(self._store.load, bell.integrator, bell.execution_id), lambda: self._minder.is_draining
        )
        if execution is None:
            structlog.get_logger().warning("a bell names an execution that is not there")
            return None
        if self._minder.is_draining:
            self._services.publisher.rang_in_vain(execution, bell)
            return None
        return self.claim_on(execution, bell, new_token())

    def claim_on(self, execution: Execution, bell: Bell, token: str) -> Claimed | None:
        """Claim on what was loaded; a claim by the same ``token`` that may have been written already is known again."""
        settled = settle(
            self._store,
            execution,
            lambda seen: claim(seen, bell.step, token, self._now(), self._services.terms),
            is_mine=lambda seen: seen.steps[bell.step].token == token,
            give_up=lambda: self._minder.is_draining,
        )
        if settled is None:
            structlog.get_logger().debug("there is nothing to claim")
            return None
        # The claim's own line waits for the first write that is told to Redis.
        told = max(settled.record.lines_total - len(settled.advance.events), 0)
        if settled.advance.run_here is None:  # past a deadline: the run has ended instead
            self._services.publisher.advanced(settled.record, settled.advance, as_of=settled.as_of, told=told)
            return None
        claimed = settled.record.execution
        lease = claimed.lease_of(bell.step)
        draft = Draft(
            self._services, settled.record, lease,
            told=told,
            give_up=lambda: self._minder.is_drain_over,
            unwritten_max_s=self._unwritten_max_s,
        )  # fmt: skip
        return Turn(claimed, lease, {}), draft

    def _now(self) -> datetime:
        return self._services.clock.now()
