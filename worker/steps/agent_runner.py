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
from shared.clock import since_boot
from shared.domain.definitions.step_input import NothingThere, given_to
from shared.domain.execution import ErrorKind, Execution, Lease, RunError, Step
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.errors import LeaseLost
from shared.store.executions.settle import until_answered
from shared.store.ledger import MongoLedger
from worker.agent_loader import Agent
from worker.context import AgentContext
from worker.simulated_outcome import Silence, judge_simulated
from worker.steps.agent_memory import AgentMemory
from worker.steps.checkpoints import StepCheckpoints
from worker.steps.outcome_checks import judge_exception, judge_input, judge_output, nothing_there
from worker.steps.pending_writes import Draft
from worker.steps.reporter import StepReporter
from worker.supervision.step_interrupter import Minded, Minder, StepInterrupted


@dataclass(frozen=True, slots=True)
class Turn:
    """One claimed step and what is at hand for it: outputs by step id, and when it began (seconds since boot)."""

    execution: Execution
    lease: Lease
    outputs: Mapping[str, Mapping[str, Any]]
    began_at: float = field(default_factory=since_boot)

    @property
    def step(self) -> Step:
        """The step as it was claimed."""
        return self.execution.steps[self.lease.step]

    @property
    def timeout_s(self) -> float:
        """How long the step may take."""
        return self.execution.basket.step(self.lease.step).timeout_s


class Stranger:
    """What came of a step whose agent this worker does not have."""


Outcome = bytes | RunError | Stranger | Silence


class Attempts:
    """Runs agents; whatever one raises, SystemExit and MemoryError too, is its failure and not the worker's."""

    def __init__(self, services: Services, agents: Mapping[str, Agent], minder: Minder) -> None:
        self._services = services
        self._agents = agents
        self._minder = minder
        self._memory = AgentMemory(services)

    def run(self, turn: Turn, draft: Draft, reporter: StepReporter, minded: Minded) -> Outcome:
        """Answer the outcome of one attempt; raises LeaseLost where the step has moved on meanwhile."""
        step = turn.step
        agent = self._agents.get(step.agent)
        if agent is None:
            return Stranger()
        catalogue = self._services.catalogue
        try:
            given = self._given(turn)
        except NothingThere as missing:
            return nothing_there(step, str(missing))
        refused = judge_input(step, catalogue.input_faults(step.agent, given))
        if refused is not None:
            return refused
        context = self._context(turn, draft, reporter, minded)
        try:
            with self._minder.agent_code(minded):
                returned = agent.run(given, context)
            if minded.is_late:
                return late(turn)
            return judge_output(turn.execution, step, returned, partial(catalogue.output_faults, step.agent))
        except BaseException as raised:  # noqa: BLE001
            self._minder.left(minded)  # an interrupt may come in the very moment in which the agent returns
            return self._excused(turn, minded, raised)

    def _excused(self, turn: Turn, minded: Minded, raised: BaseException) -> RunError | Silence:
        """What an exception stands for: why the step was asked to stop, where it was, or else the agent's failure."""
        if minded.why == "lost":
            raise LeaseLost from raised
        if minded.why == "timeout" or minded.is_late:
            return late(turn)
        if minded.why == "cancelled":
            return cancelled_error(turn.execution, turn.step)
        played = judge_simulated(turn.step, raised)
        if played is not None:
            return played
        if isinstance(raised, StepInterrupted):  # nobody asked: a stray signal
            structlog.get_logger().warning("a step was interrupted that nobody had asked to stop")
        structlog.get_logger().warning("the agent raised", agent=turn.step.agent, exc_info=raised)
        return judge_exception(turn.step, raised)

    def _given(self, turn: Turn) -> dict[str, Any]:
        basket = turn.execution.basket
        step = basket.step(turn.lease.step)
        outputs = dict(turn.outputs)
        missing = [need for need in step.needs if need not in outputs]
        if missing:
            read = partial(self._services.store.read, turn.lease.integrator, turn.execution.id, outputs=missing)
            record = until_answered(read, self._must_end)
            if record is None:
                raise LeaseLost(f"{turn.execution.id} is gone")
            outputs |= {need: orjson.loads(record.outputs[need]) for need in missing}
        run_input = orjson.loads(turn.execution.input)
        return given_to(basket, step.id, run_input, outputs, self._services.catalogue.required_inputs(step.agent))

    def _must_end(self) -> bool:
        return self._minder.is_drain_over

    def _context(self, turn: Turn, draft: Draft, reporter: StepReporter, minded: Minded) -> AgentContext:
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
            previous_state=self._memory.previous_state(turn.execution, step, self._must_end),
            checkpoints=StepCheckpoints(self._services, turn.execution, draft, minder=self._minder, minded=minded),
        )


def late(turn: Turn) -> RunError:
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
