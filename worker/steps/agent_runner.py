"""Runs the agent of one claimed step and returns the outcome: bytes to record, a failure, or a hand-back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import orjson
import structlog

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.definitions.step_input import InputNotFound, input_of
from shared.domain.execution import ErrorKind, Execution, Lease, RunError, Step
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.errors import LeaseLost
from shared.store.executions.settle import retry_until_reply
from shared.store.ledger import MongoLedger
from worker.agent_loader import Agent
from worker.context import AgentContext
from worker.simulated_outcome import NoOutcome, simulated_outcome_of
from worker.steps.agent_memory import AgentMemory
from worker.steps.checkpoints import StepCheckpoints
from worker.steps.outcome_checks import check_input, check_output, error_of_exception, missing_input_error
from worker.steps.pending_writes import PendingWrites
from worker.steps.reporter import StepReporter
from worker.supervision.step_interrupter import RunningStep, StepInterrupted, StepInterrupter


@dataclass(frozen=True, slots=True)
class ClaimedStep:
    """One claimed step, the outputs that are at hand (by step id), and when it began (seconds since boot)."""

    execution: Execution
    lease: Lease
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


class AgentNotLoaded:
    """Outcome of a step whose agent this worker does not have."""


Outcome = bytes | RunError | AgentNotLoaded | NoOutcome


class AgentRunner:
    """Runs agents; any exception of an agent, SystemExit and MemoryError too, is its failure and not the worker's."""

    def __init__(self, services: Services, agents: Mapping[str, Agent], interrupter: StepInterrupter) -> None:
        self._services = services
        self._agents = agents
        self._interrupter = interrupter
        self._memory = AgentMemory(services)

    def run(
        self,
        claimed_step: ClaimedStep,
        pending_writes: PendingWrites,
        reporter: StepReporter,
        running_step: RunningStep,
    ) -> Outcome:
        """Run one attempt and return its outcome; raises LeaseLost if the step has moved on meanwhile."""
        step = claimed_step.step
        agent = self._agents.get(step.agent)
        if agent is None:
            return AgentNotLoaded()
        catalogue = self._services.catalogue
        try:
            step_input = self._input_of(claimed_step)
        except InputNotFound as error:
            return missing_input_error(step, str(error))
        input_error = check_input(step, catalogue.find_input_faults(step.agent, step_input))
        if input_error is not None:
            return input_error
        context = self._context(claimed_step, pending_writes, reporter, running_step)
        try:
            with self._interrupter.interruptible(running_step):
                returned = agent.run(step_input, context)
            if running_step.is_past_deadline:
                return timeout_error(claimed_step)
            return check_output(
                claimed_step.execution, step, returned, partial(catalogue.find_output_faults, step.agent)
            )
        except BaseException as raised:  # noqa: BLE001
            self._interrupter.leave_agent(running_step)  # an interrupt may come just when the agent returns
            return self._outcome_of_exception(claimed_step, running_step, raised)

    def _outcome_of_exception(
        self, claimed_step: ClaimedStep, running_step: RunningStep, raised: BaseException
    ) -> RunError | NoOutcome:
        """Return the outcome for an exception: the reason of a requested stop, or else the agent's failure."""
        if running_step.stop_reason == "lost":
            raise LeaseLost from raised
        if running_step.stop_reason == "timeout" or running_step.is_past_deadline:
            return timeout_error(claimed_step)
        if running_step.stop_reason == "cancelled":
            return cancelled_error(claimed_step.execution, claimed_step.step)
        simulated = simulated_outcome_of(claimed_step.step, raised)
        if simulated is not None:
            return simulated
        if isinstance(raised, StepInterrupted):  # a stray signal
            structlog.get_logger().warning("a step was interrupted without a request to stop")
        structlog.get_logger().warning("the agent raised", agent=claimed_step.step.agent, exc_info=raised)
        return error_of_exception(claimed_step.step, raised)

    def _input_of(self, claimed_step: ClaimedStep) -> dict[str, Any]:
        basket = claimed_step.execution.basket
        step = basket.step(claimed_step.lease.step)
        outputs = dict(claimed_step.outputs)
        missing = [need for need in step.needs if need not in outputs]
        if missing:
            read = partial(
                self._services.store.read, claimed_step.lease.integrator, claimed_step.execution.id, outputs=missing
            )
            record = retry_until_reply(read, self._is_exit_due)
            if record is None:
                raise LeaseLost(f"{claimed_step.execution.id} is gone")
            outputs |= {need: orjson.loads(record.outputs[need]) for need in missing}
        run_input = orjson.loads(claimed_step.execution.input)
        return input_of(basket, step.id, run_input, outputs, self._services.catalogue.required_inputs(step.agent))

    def _is_exit_due(self) -> bool:
        return self._interrupter.is_drain_over

    def _context(
        self,
        claimed_step: ClaimedStep,
        pending_writes: PendingWrites,
        reporter: StepReporter,
        running_step: RunningStep,
    ) -> AgentContext:
        step = claimed_step.step
        started_at = step.started_at or claimed_step.execution.created_at
        return AgentContext(
            execution_id=claimed_step.execution.id,
            step=step.id,
            attempt=step.claims,
            idempotency_key=claimed_step.execution.idempotency_key(step.id),
            request_id=claimed_step.execution.request_id,
            deadline=started_at + timedelta(seconds=claimed_step.timeout_s),
            ledger=MongoLedger(self._services.database, self._services.clock, claimed_step.lease.integrator),
            reporter=reporter,
            cancel=running_step.cancel,
            previous_state=self._memory.previous_state(claimed_step.execution, step, self._is_exit_due),
            checkpoints=StepCheckpoints(
                self._services, claimed_step.execution, pending_writes, interrupter=self._interrupter, running_step=running_step
            ),
        )


def timeout_error(claimed_step: ClaimedStep) -> RunError:
    """Return the ``timeout`` error of a step that exceeded its time limit."""
    step = claimed_step.step
    return RunError(
        "timeout",
        f"{step.id} took longer than the {claimed_step.timeout_s:g} s it may take",
        ErrorKind.TIMEOUT,
        agent=step.agent,
        step=step.id,
        attempt=step.claims,
    )
