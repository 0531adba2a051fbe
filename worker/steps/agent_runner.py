"""Runs the agent of one claimed step and returns the outcome: bytes to record, a failure, or a hand-back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import orjson
import structlog

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.definitions.step_input import InputTooLarge, StepInputError, input_of
from shared.domain.execution import ErrorKind, RunError
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.errors import EncryptionKeyMissing, LeaseLost, SealBroken
from shared.store.executions.settle import retry_until_reply
from shared.store.ledger import MongoLedger
from worker.agent_loader import Agent
from worker.agent_settings import AgentSettings, hide_settings
from worker.context import AgentContext, write_log_line
from worker.gateway.gateway import Gateway
from worker.gateway.outbound import Outbound
from worker.gateway.step_facts import StepFacts
from worker.simulated_outcome import NoOutcome, simulated_outcome_of
from worker.steps.agent_memory import AgentMemory
from worker.steps.checkpoints import StepCheckpoints
from worker.steps.claims import ClaimedStep
from worker.steps.failures.failure_recorder import FailureRecorder
from worker.steps.outcome_checks import check_output, error_of_exception, join_faults, step_error, wait_asked_by
from worker.steps.protection.step_protection import ProtectedOutput, StepProtection
from worker.supervision.agent_isolation import AgentIsolation
from worker.supervision.step_interrupter import RunningStep, StepInterrupted, StepInterrupter


class AgentNotLoaded:
    """Outcome of a step whose agent this worker does not have."""


@dataclass(frozen=True, slots=True)
class KeyMissing:
    """Outcome of a step that was given something sealed by a key that this worker does not have."""

    reason: str


class WorkerDrains:
    """Outcome of a step that this worker cannot finish before it must end: another worker goes on at once."""


@dataclass(frozen=True, slots=True)
class PostponedFailure:
    """Outcome of an attempt whose failure says how long the next one must wait at least, in seconds."""

    error: RunError
    wait_s: float


Outcome = bytes | ProtectedOutput | RunError | PostponedFailure | AgentNotLoaded | KeyMissing | WorkerDrains | NoOutcome


class AgentRunner:
    """Runs agents; any exception of an agent, SystemExit and MemoryError too, is its failure and not the worker's."""

    def __init__(
        self,
        services: Services,
        agents: Mapping[str, Agent],
        interrupter: StepInterrupter,
        isolation: AgentIsolation | None = None,
    ) -> None:
        """Without ``isolation`` nothing that an agent changes in its process is put back."""
        self._services = services
        self._agents = agents
        self._interrupter = interrupter
        self._isolation = isolation
        self._memory = AgentMemory(services)
        self._protection = StepProtection(services)
        self._failures = FailureRecorder(services)
        self._outbound = Outbound(services.settings)

    def run(self, claimed_step: ClaimedStep, running_step: RunningStep) -> Outcome:
        """Run one attempt and return its outcome; raises LeaseLost if the step has moved on meanwhile."""
        step = claimed_step.step
        agent = self._agents.get(step.agent)
        if agent is None:
            return AgentNotLoaded()
        opened = self._opened_input_of(claimed_step)
        if not isinstance(opened, tuple):
            return opened
        step_input, hidden = opened
        context = self._context(agent, claimed_step, running_step, hidden)
        if hidden:  # from here on only for what is told of the agent
            agent = replace(agent, settings=AgentSettings({**agent.settings, **hidden}))
        try:
            returned = self._run_isolated(agent, step_input, context, running_step)
            if running_step.is_past_deadline:
                return timeout_error(claimed_step)
            outcome: Outcome = check_output(
                self._services.catalogue, claimed_step.execution, step, returned, agent.settings
            )
        except BaseException as raised:  # noqa: BLE001
            outcome = self._outcome_of_exception(agent, claimed_step, running_step, raised)
        if isinstance(outcome, bytes):
            outcome = self._protection.protect(claimed_step.execution, step, outcome, hidden.values())
        if isinstance(outcome, RunError):
            return replace(outcome, message=hide_settings(outcome.message, agent.settings))
        return outcome

    def _run_isolated(
        self, agent: Agent, step_input: dict[str, Any], context: AgentContext, running_step: RunningStep
    ) -> Any:
        try:
            with self._interrupter.interruptible(running_step):
                if self._isolation is None:
                    return agent.run(step_input, context)
                return self._isolation.run(agent.run, step_input, context)
        finally:
            self._interrupter.leave_agent(running_step)  # an interrupt may come just when the agent returns
            if self._isolation is not None:
                self._isolation.reset()

    def _outcome_of_exception(
        self, agent: Agent, claimed_step: ClaimedStep, running_step: RunningStep, raised: BaseException
    ) -> RunError | PostponedFailure | NoOutcome:
        """Return the outcome for an exception: the reason of a requested stop, or else the agent's failure."""
        if running_step.stop_reason == "lost":
            raise LeaseLost from raised
        if running_step.stop_reason == "timeout" or running_step.is_past_deadline:
            error = timeout_error(claimed_step)
            self._failures.record(claimed_step, agent, error, raised)  # it says where the agent was
            return error
        if running_step.stop_reason == "cancelled":
            return cancelled_error(claimed_step.execution, claimed_step.step)
        simulated = simulated_outcome_of(claimed_step.step, raised)
        if simulated is not None:
            return simulated
        if isinstance(raised, StepInterrupted):  # a stray signal
            structlog.get_logger().warning("a step was interrupted without a request to stop")
        error = error_of_exception(claimed_step.step, raised, agent.settings)
        text = self._failures.record(claimed_step, agent, error, raised)
        structlog.get_logger().warning("the agent raised", agent=agent.spec.name, exception=text)
        wait_s = wait_asked_by(raised)
        return PostponedFailure(error, wait_s) if wait_s else error

    def _opened_input_of(
        self, claimed_step: ClaimedStep
    ) -> tuple[dict[str, Any], dict[str, str]] | RunError | KeyMissing:
        """Return the input of a step in clear and the texts in it that only its agent may see, or why it has none."""
        step = claimed_step.step
        try:
            step_input = self._checked_input_of(claimed_step)
            if isinstance(step_input, RunError):
                return step_input
            return step_input, self._protection.hidden_texts(claimed_step.execution, step, step_input)
        except EncryptionKeyMissing as missing:
            return KeyMissing(missing.message)
        except SealBroken as error:
            return step_error(step, "input_invalid", f"the input of {step.id} cannot be opened: {error.message}")

    def _checked_input_of(self, claimed_step: ClaimedStep) -> dict[str, Any] | RunError:
        step = claimed_step.step
        try:
            step_input = self._input_of(claimed_step)
        except InputTooLarge as error:
            return step_error(step, "input_too_large", str(error))
        except StepInputError as error:
            return step_error(step, "input_invalid", f"the input of {step.id} cannot be made: {error}")
        if faults := self._services.catalogue.find_input_faults(step.agent, step_input):
            return step_error(
                step, "input_invalid", f"the input breaks the agent's input_schema: {join_faults(faults)}"
            )
        return step_input

    def _input_of(self, claimed_step: ClaimedStep) -> dict[str, Any]:
        execution, basket = claimed_step.execution, claimed_step.execution.basket
        step = basket.step(claimed_step.lease.step)
        outputs = dict(claimed_step.outputs)
        missing = [need for need in step.needs if need not in outputs]
        if missing:
            read = partial(self._services.store.read, execution.integrator, execution.id, outputs=missing)
            record = retry_until_reply(read, lambda: self._interrupter.is_drain_over)
            if record is None:
                raise LeaseLost(f"{execution.id} is gone")
            outputs |= {need: orjson.loads(record.outputs[need]) for need in missing}
        run_input = self._protection.open_run_input(execution)
        outputs = self._protection.open_outputs(execution, outputs)
        return input_of(basket, step.id, run_input, outputs, self._services.catalogue.required_inputs(step.agent))

    def _context(
        self, agent: Agent, claimed_step: ClaimedStep, running_step: RunningStep, hidden: Mapping[str, str]
    ) -> AgentContext:
        execution, step = claimed_step.execution, claimed_step.step
        idempotency_key = execution.idempotency_key(step.id)
        tracer = self._services.tracer
        trace = None if tracer is None else tracer.attempt(execution, step)
        facts = StepFacts(
            agent=agent.spec.name,
            integrator=execution.integrator,
            idempotency_key=idempotency_key,
            request_id=execution.request_id,
            traceparent=execution.traceparent if trace is None else trace.context.traceparent,
            settings=agent.settings,
            trace=trace,
        )
        # Nothing of the context itself: a cycle of references would keep each run until the garbage collector comes.
        not_shown = {**agent.settings, **hidden} if hidden else agent.settings
        log = partial(write_log_line, claimed_step.reporter, not_shown)
        return AgentContext(
            execution_id=execution.id,
            step=step.id,
            attempt=step.claims,
            idempotency_key=idempotency_key,
            request_id=execution.request_id,
            deadline=(step.started_at or execution.created_at) + timedelta(seconds=claimed_step.timeout_s),
            ledger=MongoLedger(self._services.database, self._services.clock, execution.integrator),
            reporter=claimed_step.reporter,
            http=Gateway(self._outbound, facts, log, running_step.cancel, partial(_remaining_s, running_step)),
            settings=agent.settings,
            not_shown=not_shown,
            cancel=running_step.cancel,
            previous_state=self._memory.previous_state(execution, step, lambda: self._interrupter.is_drain_over),
            checkpoints=StepCheckpoints(
                self._services.checkpoints,
                self._services.store,
                claimed_step,
                self._interrupter,
                running_step,
                protection=self._protection,
            ),
        )


def _remaining_s(running_step: RunningStep) -> float:
    return running_step.deadline_at - boottime_s()


def timeout_error(claimed_step: ClaimedStep) -> RunError:
    """Return the ``timeout`` error of a step that exceeded its time limit."""
    message = f"{claimed_step.step.id} took longer than the {claimed_step.timeout_s:g} s it may take"
    return step_error(claimed_step.step, "timeout", message, ErrorKind.TIMEOUT)
