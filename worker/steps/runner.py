"""Runs the steps that task messages name: claim, run the agent, record the outcome once, go on. READ THIS FIRST.

    message -> load -> claim -> [agent, with heartbeat and interrupter beside it] -> decide -> next step of the chain
                         |                                                             |  '-> save, quick steps together
                       refused: another worker has it                                refused: the lease is lost, stop

A message may come twice, late, or without need: the claim decides, by one filtered write. ``AgentRunner`` catches
everything that an agent raises or returns. No failure of the store loses an outcome: the outcome is offered until the
store accepts or refuses it, or until this process must end. If a step does not stop, the interrupter's thread finishes
it. The claim of quick idempotent agents is saved with their end (``deferred_claim``). If there is a backlog and the
steps are quick, several messages share one load, one claim and one save (``BatchRunner``). This package speaks to the
store and to Redis, never to a client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import orjson
import redis
import structlog

from shared import fault_injection
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.errors import LeaseLost
from shared.ids import new_token
from shared.live.redis_client import drop_if_demoted
from shared.live.views import COPY_AFFIXES
from shared.queue.dequeue import DequeuedMessages, Dequeuer
from shared.queue.message import TaskMessage
from shared.store.executions.dead_letter_store import MongoDeadLetterStore
from shared.telemetry.tracing.tracer import Tracer
from worker.agent_loader import Agent
from worker.steps.agent_runner import AgentRunner, Outcome, WorkerDrains, timeout_error
from worker.steps.batch_runner import BatchRunner, BatchSizer
from worker.steps.claims import ClaimedStep, Claims
from worker.steps.heartbeat import Heartbeat, HeartbeatThread
from worker.steps.outcome_recorder import OutcomeRecorder
from worker.supervision.agent_isolation import AgentIsolation
from worker.supervision.step_interrupter import RunningStep, StepInterrupter

CHAIN_MAX_S: Final = 600.0
BACKLOG_LOOP_MAX_S: Final = 1.0
GATHER_S: Final = 0.005
"""After a few quick messages, how long to wait for more: what comes together shares its reads and writes."""


class Runner:
    """Runs steps in the process that calls it, which has one runner and one ``interrupter``."""

    def __init__(
        self,
        services: Services,
        agents: Mapping[str, Agent],
        interrupter: StepInterrupter,
        queues: Sequence[str],
        isolation: AgentIsolation | None = None,
    ) -> None:
        self._services = services
        self._tracer = services.tracer
        self._interrupter = interrupter
        self._isolation = isolation
        self._agent_runner = AgentRunner(services, agents, interrupter, isolation)
        self._recorder = OutcomeRecorder(services, lambda: interrupter.is_drain_over)
        self._dequeuer = Dequeuer(services.redis, queues, services.settings.worker_concurrency, COPY_AFFIXES)
        self._claims = Claims(services, interrupter)
        self._batch_sizer = BatchSizer()
        self._batch_runner = BatchRunner(services, interrupter, self._claims, self._claim_and_run_chain)
        self._heartbeat_thread = HeartbeatThread(self._batch_runner.on_tick)
        self._heartbeat_thread.start()
        self._in_progress: ClaimedStep | None = None
        self._agent_time_s = 0.0

    def run_message_and_backlog(self, message: TaskMessage) -> None:
        """Run a message that Celery delivered, then the backlog, for at most :data:`BACKLOG_LOOP_MAX_S` seconds.

        Then Celery's loop must get its turn. The sizes of the batches come from :class:`BatchSizer`.
        """
        began_at, taken = boottime_s(), 1
        self._batch_runner.run((message,))
        while boottime_s() - began_at <= BACKLOG_LOOP_MAX_S:
            size = self._batch_sizer.next_size()
            if 1 < taken < size:
                time.sleep(GATHER_S)
            if self._is_ending or not (batch := self._dequeue(size)).messages:
                return
            self._batch_runner.run(batch.messages, batch.copies)
            taken = len(batch.messages)

    @property
    def _is_ending(self) -> bool:
        """Whether this process begins no further step: its worker drains, or it is no longer fit for one."""
        return self._interrupter.is_draining or (self._isolation is not None and self._isolation.is_unfit)

    def _dequeue(self, size: int) -> DequeuedMessages:
        try:
            batch = self._dequeuer.dequeue(size)
        except redis.RedisError as error:
            structlog.get_logger().warning("no message was dequeued", reason=str(error))
            drop_if_demoted(self._services.redis, error)
            return DequeuedMessages()
        for raw in batch.unreadable:
            dead_letter_message(self._services.dead_letters, raw.decode(errors="replace"))
        return batch

    def run_message(self, message: TaskMessage) -> None:
        """Run the step that a message names, and the steps of its chain that this worker's own decisions claim."""
        self._batch_runner.run((message,))

    def _claim_and_run_chain(self, message: TaskMessage, claim: Callable[[], ClaimedStep | None]) -> None:
        began_at, self._agent_time_s = boottime_s(), 0.0
        with structlog.contextvars.bound_contextvars(execution_id=message.execution_id, step=message.step):
            claimed_step = claim()
            fault_injection.reach("worker.claimed")
            if claimed_step is None:
                return
            while claimed_step is not None:
                with structlog.contextvars.bound_contextvars(
                    step=claimed_step.lease.step,
                    request_id=claimed_step.execution.request_id,
                    **({} if self._tracer is None else _begin_span(self._tracer, claimed_step)),
                ):
                    claimed_step = self._run_step(claimed_step, chain_ends_at=began_at + CHAIN_MAX_S)
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
        outcome: Outcome = WorkerDrains()
        if reason == "timeout":
            outcome = timeout_error(in_progress)
        elif reason == "cancelled":
            outcome = cancelled_error(in_progress.execution, in_progress.step)
        self._recorder.record(in_progress, outcome)
        self._batch_runner.flush()

    def _run_step(self, claimed_step: ClaimedStep, *, chain_ends_at: float) -> ClaimedStep | None:
        """Run one claimed step until its outcome is decided; return the next step if the decision claimed one."""
        may_continue_chain = boottime_s() < chain_ends_at
        limits = self._interrupter.enforce_limits(claimed_step.lease, claimed_step.timeout_s, claimed_step.step.agent)
        with limits as running_step:
            request_stop = partial(self._interrupter.request_stop, running_step)
            heartbeat = Heartbeat(self._services, claimed_step, request_stop)
            self._in_progress = claimed_step
            try:
                with self._heartbeat_thread.attach(heartbeat):
                    outcome = self._run_agent(claimed_step, running_step)
                    fault_injection.reach("worker.agent_returned")
                self._agent_time_s += boottime_s() - claimed_step.began_at
                # Once a cancel or a lost lease is known here, the outcome is saved before anything else begins.
                is_stopping = bool(running_step.stop_reason) or self._is_ending
                may_claim_next = may_continue_chain and not is_stopping
                next_token = new_token() if may_claim_next else None
                decision = self._recorder.record(claimed_step, outcome, next_token=next_token)
            except LeaseLost:
                structlog.get_logger().warning("the lease was lost; the agent's outcome is dropped")
                return None
            finally:
                self._in_progress = None
        pending_writes = claimed_step.pending_writes
        if decision.next_step is None or pending_writes.execution.is_done:
            return None
        outputs = {output.step: orjson.loads(output.json) for output in decision.outputs}
        return self._claims.begin_step(pending_writes, decision.next_step, {**claimed_step.outputs, **outputs})

    def _run_agent(self, claimed_step: ClaimedStep, running_step: RunningStep) -> Outcome:
        """Run the agent, unless this process is ending since the claim: then the step is handed back."""
        if self._is_ending:
            return WorkerDrains()
        return self._agent_runner.run(claimed_step, running_step)


def _begin_span(tracer: Tracer, claimed_step: ClaimedStep) -> dict[str, str]:
    """Export the wait of a claimed step, and return the fields of the log lines of its attempt."""
    return tracer.begin_attempt(claimed_step.execution, claimed_step.step)


def dead_letter_message(dead_letters: MongoDeadLetterStore, message: str) -> None:
    """Store a message that cannot be read as a dead letter; raises nothing, also if the store is away."""
    log = structlog.get_logger()
    log.warning("a message cannot be read and was dropped", message=message[:200])
    try:
        dead_letters.add_message(PUBLIC_INTEGRATOR, message)
    except Exception:
        log.exception("a message that cannot be read was not stored as a dead letter")
