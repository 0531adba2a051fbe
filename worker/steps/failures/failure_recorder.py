"""Records what an agent raised for its author: a secondary write, which never fails or holds up a run."""

from __future__ import annotations

import structlog

from shared.bootstrap import Services
from shared.domain.attempt_failure import AttemptFailure
from shared.domain.execution import RunError
from shared.errors import BucketError
from worker.agent_loader import Agent
from worker.steps.claims import ClaimedStep
from worker.steps.failures.agent_traceback import format_agent_traceback


class FailureRecorder:
    """Stores the traceback of each attempt in which an agent raised; a good attempt writes nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def record(self, claimed_step: ClaimedStep, agent: Agent, error: RunError, raised: BaseException) -> str:
        """Store the traceback of a failed attempt, and return it; raises nothing."""
        folder = self._services.catalogue.folder(agent.spec.name)
        text = format_agent_traceback(raised, folder, agent.settings)
        try:
            failure = AttemptFailure(
                integrator=claimed_step.execution.integrator,
                execution_id=claimed_step.execution.id,
                step=claimed_step.step.id,
                agent=agent.spec.name,
                attempt=claimed_step.step.claims,
                at=self._services.clock.now(),  # it may have to ask the store
                error_code=error.error_code,
                traceback=text,
            )
            self._services.failures.add(failure)
            self._services.erasures.delete_late(claimed_step.execution)
        except BucketError as away:
            structlog.get_logger().warning("a traceback was not stored", reason=away.message)
        return text
