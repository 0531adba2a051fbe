"""The deferred claim: a quick chain of idempotent agents runs before its claim is stored, which then rides in its end.

The end's filter, version and nobody's lease, decides whose result counts. After 50 ms the heartbeat thread stores the
claim. Until then another worker may run the same agent, if the message came twice: that is what ``idempotent`` in an
agent's spec allows. A worker that dies in that time has lost a message and no lease, so the step is offered again after
its hand-off time; from then on the run is claimed first, so that its losses are counted (docs/engine.md, section 10).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.execution import Execution
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.timings import Timings
from shared.domain.lifecycle.transitions import claim
from shared.errors import LeaseLost
from shared.ids import new_token


def may_defer_claim(
    catalogue: AgentCatalogue, execution: Execution, step_id: str, now: datetime, timings: Timings
) -> bool:
    """Return whether ``step_id`` of an untouched run may begin before its claim is stored.

    Before a deadline it may not: the run could end with a step that has begun and does not show it. Neither may it
    after its hand-off time: the reconciler may have postponed it for long, and would find a dead worker late.
    """
    step = execution.steps.get(step_id)
    if step is None or step.offered_at is None or execution.expires_at is not None:
        return False
    is_in_time = now < step.offered_at + timings.handoff_timeout(step.offers)
    return is_in_time and is_idempotent(catalogue, execution, step_id)


def is_idempotent(catalogue: AgentCatalogue, execution: Execution, step_id: str) -> bool:
    """Return whether the agent of a step is installed here and may run twice at the same time."""
    agent = execution.steps[step_id].agent
    return catalogue.has(agent) and catalogue.agent(agent).capabilities.idempotent


class DeferredClaim:
    """The claim of a step that is decided and not stored yet; call it to decide on it again."""

    def __init__(self, execution: Execution, step_id: str, now: datetime, timings: Timings) -> None:
        """Claim ``step_id`` of ``execution`` with a new token; raises LeaseLost if it cannot be claimed."""
        self._step_id, self._now, self._timings, self._token = step_id, now, timings, new_token()
        self.decision = self._claim(execution)
        self.lease = self.decision.execution.lease_of(step_id)

    def __call__(self, execution: Execution, _: str | None) -> Decision:
        """Return the claim on ``execution`` as it is now; raises LeaseLost if it would give another lease."""
        if execution.steps[self._step_id].is_running_under(self.lease):
            return Decision(execution, next_step=self._step_id)  # stored already, by a write whose reply was lost
        decision = self._claim(execution)
        if decision.execution.lease_of(self._step_id) != self.lease:
            raise LeaseLost(f"step {self._step_id} of {execution.id} was claimed by another worker first")
        return decision

    def _claim(self, execution: Execution) -> Decision:
        decision = claim(execution, self._step_id, self._token, self._now, self._timings)
        if decision is None or decision.next_step is None:
            raise LeaseLost(f"step {self._step_id} of {execution.id} is not to be claimed")
        # Not a lock alone: the view is published with it, so a failover must not take it back.
        return replace(decision, is_lock_only=False)
