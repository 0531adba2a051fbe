"""Runs the steps that task messages name: claim, run the agent, record the outcome once, go on. READ THIS FIRST.

    message -> load -> claim -> [agent, with heartbeat and interrupter beside it] -> decide -> next step of the chain
                         |                                                             |  '-> save, quick steps together
                       refused: another worker has it                                refused: the lease is lost, stop

A message may come twice, late, or without need: the claim decides, by one filtered write. ``AgentRunner`` catches
everything that an agent raises or returns. No failure of the store loses an outcome: the outcome is offered until the
store accepts or refuses it, or until this process must end. If a step does not stop, the interrupter's thread finishes
it. If there is a backlog and the steps are quick, several messages share one load, one claim and one save
(``BatchRunner``). This package speaks to the store and to Redis, never to a client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import orjson
import redis
import structlog

from shared import faults
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.execution import Execution
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.errors import LeaseLost
from shared.ids import new_token
from shared.queue.dequeue import Dequeuer
from shared.queue.message import TaskMessage
from worker.agent_loader import Agent
from worker.steps.agent_runner import AgentRunner, ClaimedStep, timeout_error
from worker.steps.batch_runner import BatchRunner, BatchSizer
from worker.steps.claims import ClaimResult, Claims
from worker.steps.heartbeat import Heartbeat, HeartbeatThread
from worker.steps.outcome_recorder import OutcomeRecorder
from worker.steps.pending_writes import WRITE_DELAY_MAX_S, PendingWrites
from worker.steps.reporter import StepReporter
from worker.steps.unreadable_message import dead_letter_message
from worker.supervision.step_interrupter import RunningStep, StepInterrupter

CHAIN_MAX_S: Final = 600.0
BACKLOG_LOOP_MAX_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _StepInProgress:
    """The step that runs now, with all that is needed to finish it in the agent's place."""

    claimed_step: ClaimedStep
    pending_writes: PendingWrites
    reporter: StepReporter


class Runner:
    """Runs steps in the process that calls it, which has one runner and one ``interrupter``."""

    def __init__(
        self,
        services: Services,
        agents: Mapping[str, Agent],
        interrupter: StepInterrupter,
        queues: Sequence[str] = QUEUE_NAMES,
        write_delay_max_s: float = WRITE_DELAY_MAX_S,
    ) -> None:
        self._services = services
        self._store = services.store
        self._interrupter = interrupter
        self._agent_runner = AgentRunner(services, agents, interrupter)
        self._recorder = OutcomeRecorder(services, lambda: interrupter.is_drain_over)
        self._dequeuer = Dequeuer(services.redis, queues, services.settings.worker_concurrency)
        self._claims = Claims(services, interrupter, write_delay_max_s)
        self._batch_sizer = BatchSizer()
        self._batch_runner = BatchRunner(
            services, interrupter, self._claims, self._claim_and_run_chain, write_delay_max_s
        )
        self._heartbeat_thread = HeartbeatThread(self._batch_runner.on_tick)
        self._heartbeat_thread.start()
        self._in_progress: _StepInProgress | None = None
        self._agent_time_s = 0.0

    def run_message_and_backlog(self, message: TaskMessage) -> None:
        """Run a message that Celery delivered, then the backlog, for at most :data:`BACKLOG_LOOP_MAX_S` seconds.

        Then Celery's loop must get its turn. The sizes of the batches come from :class:`BatchSizer`.
        """
        began_at = boottime_s()
        messages: Sequence[TaskMessage] = (message,)
        while messages:
            if len(messages) == 1:
                self.run_message(messages[0])
            else:
                self._batch_runner.run(messages)
            if self._interrupter.is_draining or boottime_s() - began_at > BACKLOG_LOOP_MAX_S:
                return
            messages = self._dequeue()

    def _dequeue(self) -> Sequence[TaskMessage]:
        try:
            batch = self._dequeuer.dequeue(self._batch_sizer.next_size())
        except redis.RedisError as error:
            structlog.get_logger().warning("no message was dequeued", reason=str(error))
            return ()
        for raw in batch.unreadable:
            dead_letter_message(self._services.dead_letters, raw.decode(errors="replace"))
        return batch.messages

    def run_message(self, message: TaskMessage) -> None:
        """Run the step that a message names, and the steps of its chain that this worker's own decisions claim."""
        self._claim_and_run_chain(message, partial(self._claims.claim, message))

    def _claim_and_run_chain(self, message: TaskMessage, claim: Callable[[], ClaimResult | None]) -> None:
        began_at, self._agent_time_s = boottime_s(), 0.0
        with structlog.contextvars.bound_contextvars(execution_id=message.execution_id, step=message.step):
            claim_result = claim()
            faults.reach("worker.claimed")
            if claim_result is None:
                return
            claimed_step: ClaimedStep | None
            claimed_step, pending_writes = claim_result
            while claimed_step is not None:
                with structlog.contextvars.bound_contextvars(
                    step=claimed_step.lease.step, request_id=claimed_step.execution.request_id
                ):
                    claimed_step = self._run_step(
                        claimed_step, pending_writes, may_continue_chain=boottime_s() - began_at < CHAIN_MAX_S
                    )
        self._batch_sizer.record_duration(self._agent_time_s)

    def force_finish(self, running_step: RunningStep, reason: str) -> None:
        """Write the outcome of a step whose agent does not stop; the process ends after this call.

        ``reason`` is ``timeout``, ``cancelled``, ``lost`` or ``drained``. A drained step is released; a lost one is
        left to its new holder.
        """
        in_progress = self._in_progress
        if in_progress is None or reason == "lost":
            return
        log = structlog.get_logger()
        log.error("an agent did not stop, so its process ends", why=reason, lease=str(running_step.lease))
        claimed_step, pending_writes = in_progress.claimed_step, in_progress.pending_writes
        reporter = in_progress.reporter
        if reason == "drained":
            self._recorder.release_step(claimed_step, pending_writes, reporter, "its worker shuts down")
        else:
            error = (
                timeout_error(claimed_step)
                if reason == "timeout"
                else cancelled_error(claimed_step.execution, claimed_step.step)
            )
            self._recorder.record(claimed_step, pending_writes, error, reporter)
        self._batch_runner.flush()

    def _run_step(
        self, claimed_step: ClaimedStep, pending_writes: PendingWrites, *, may_continue_chain: bool
    ) -> ClaimedStep | None:
        """Run one claimed step until its outcome is decided; return the next step if the decision claimed one."""
        reporter = StepReporter(claimed_step.step.agent, claimed_step.step.id, self._log_time)
        with self._interrupter.enforce_limits(claimed_step.lease, claimed_step.timeout_s) as running_step:
            heartbeat = Heartbeat(
                self._services,
                pending_writes,
                claimed_step.lease,
                reporter,
                request_stop=partial(self._interrupter.request_stop, running_step),
            )
            self._in_progress = _StepInProgress(claimed_step, pending_writes, reporter)
            try:
                with self._heartbeat_thread.attach(heartbeat):
                    outcome = self._agent_runner.run(claimed_step, pending_writes, reporter, running_step)
                    faults.reach("worker.agent_returned")
                self._agent_time_s += boottime_s() - claimed_step.began_at
                may_claim_next = may_continue_chain and not self._interrupter.is_draining
                next_token = new_token() if may_claim_next else None
                decision = self._recorder.record(claimed_step, pending_writes, outcome, reporter, next_token=next_token)
            except LeaseLost:
                structlog.get_logger().warning("the lease was lost; the agent's outcome is dropped")
                return None
            finally:
                self._in_progress = None
        return self._next_claimed_step(claimed_step, pending_writes.execution, decision)

    @staticmethod
    def _next_claimed_step(claimed_step: ClaimedStep, execution: Execution, decision: Decision) -> ClaimedStep | None:
        """Return the step that a decision claimed for this worker, or None."""
        if decision.next_step is None or execution.is_done:
            return None
        outputs = dict(claimed_step.outputs)
        outputs |= {output.step: orjson.loads(output.json) for output in decision.outputs}
        return ClaimedStep(execution, execution.lease_of(decision.next_step), outputs)

    def _log_time(self) -> datetime:
        """Return the time for a log line of an agent, without waiting for a store that is away."""
        return self._services.clock.now_or_none() or self._services.clock.now()
