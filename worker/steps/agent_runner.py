"""Runs the agent of one claimed step and answers what came of it: bytes to record, a failure, or a hand-back."""

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
from shared.store.executions.settle import retry_until_answered
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
    """One claimed step and what is at hand for it: outputs by step id, and when it began (seconds since boot)."""

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
    """What came of a step whose agent this worker does not have."""


Outcome = bytes | RunError | AgentNotLoaded | NoOutcome


class AgentRunner:
    """Runs agents; whatever one raises, SystemExit and MemoryError too, is its failure and not the worker's."""

    def __init__(self, services: Services, agents: Mapping[str, Agent], minder: StepInterrupter) -> None:
        self._services = services
        self._agents = agents
        self._interrupter = minder
        self._memory = AgentMemory(services)

    def run(self, turn: ClaimedStep, draft: PendingWrites, reporter: StepReporter, minded: RunningStep) -> Outcome:
        """Answer the outcome of one attempt; raises LeaseLost where the step has moved on meanwhile."""
        step = turn.step
        agent = self._agents.get(step.agent)
        if agent is None:
            return AgentNotLoaded()
        catalogue = self._services.catalogue
        try:
            given = self._input_of(turn)
        except InputNotFound as missing:
            return missing_input_error(step, str(missing))
        refused = check_input(step, catalogue.find_input_faults(step.agent, given))
        if refused is not None:
            return refused
        context = self._context(turn, draft, reporter, minded)
        try:
            with self._interrupter.interruptible(minded):
                returned = agent.run(given, context)
            if minded.is_past_deadline:
                return timeout_error(turn)
            return check_output(turn.execution, step, returned, partial(catalogue.find_output_faults, step.agent))
        except BaseException as raised:  # noqa: BLE001
            self._interrupter.leave_agent(minded)  # an interrupt may come in the very moment in which the agent returns
            return self._outcome_of_exception(turn, minded, raised)

    def _outcome_of_exception(
        self, turn: ClaimedStep, minded: RunningStep, raised: BaseException
    ) -> RunError | NoOutcome:
        """What an exception stands for: why the step was asked to stop, where it was, or else the agent's failure."""
        if minded.stop_reason == "lost":
            raise LeaseLost from raised
        if minded.stop_reason == "timeout" or minded.is_past_deadline:
            return timeout_error(turn)
        if minded.stop_reason == "cancelled":
            return cancelled_error(turn.execution, turn.step)
        played = simulated_outcome_of(turn.step, raised)
        if played is not None:
            return played
        if isinstance(raised, StepInterrupted):  # nobody asked: a stray signal
            structlog.get_logger().warning("a step was interrupted that nobody had asked to stop")
        structlog.get_logger().warning("the agent raised", agent=turn.step.agent, exc_info=raised)
        return error_of_exception(turn.step, raised)

    def _input_of(self, turn: ClaimedStep) -> dict[str, Any]:
        basket = turn.execution.basket
        step = basket.step(turn.lease.step)
        outputs = dict(turn.outputs)
        missing = [need for need in step.needs if need not in outputs]
        if missing:
            read = partial(self._services.store.read, turn.lease.integrator, turn.execution.id, outputs=missing)
            record = retry_until_answered(read, self._is_exit_due)
            if record is None:
                raise LeaseLost(f"{turn.execution.id} is gone")
            outputs |= {need: orjson.loads(record.outputs[need]) for need in missing}
        run_input = orjson.loads(turn.execution.input)
        return input_of(basket, step.id, run_input, outputs, self._services.catalogue.required_inputs(step.agent))

    def _is_exit_due(self) -> bool:
        return self._interrupter.is_drain_over

    def _context(
        self, turn: ClaimedStep, draft: PendingWrites, reporter: StepReporter, minded: RunningStep
    ) -> AgentContext:
        step = turn.step
        began = step.started_at or turn.execution.created_at
        return AgentContext(
            execution_id=turn.execution.id,
            step=step.id,
            attempt=step.claims,
            idempotency_key=turn.execution.idempotency_key(step.id),
            request_id=turn.execution.request_id,
            deadline=began + timedelta(seconds=turn.timeout_s),
            ledger=MongoLedger(self._services.database, self._services.clock, turn.lease.integrator),
            reporter=reporter,
            cancel=minded.cancel,
            previous_state=self._memory.previous_state(turn.execution, step, self._is_exit_due),
            checkpoints=StepCheckpoints(self._services, turn.execution, draft, minder=self._interrupter, minded=minded),
        )


def timeout_error(turn: ClaimedStep) -> RunError:
    """Answer the failure of a step that took longer than it may."""
    step = turn.step
    return RunError(
        "timeout",
        f"{step.id} took longer than the {turn.timeout_s:g} s it may take",
        ErrorKind.TIMEOUT,
        agent=step.agent,
        step=step.id,
        attempt=step.claims,
    )
