"""Runs steps: claims one, runs its agent, records the outcome once, goes on. READ THIS FIRST.

    bell -> load -> claim -> [agent, with heartbeat and minder beside it] -> decide -> next step of the chain
                      |                                                        |  '-> write, with quick steps together
                    refused: somebody else has it                            refused: the lease is lost, stop quietly

A bell may come twice, late, or for nothing: the claim decides, by one filtered write. Nothing that an agent raises
or returns gets past ``Attempts``; nothing that the store does loses an outcome: it is offered until it is accepted
or refused, or until this process must end. A step that will not stop is finished in the minder's thread. Where a
backlog waits and steps prove quick, several bells share their load, their claim and their end (``batch``). It speaks
to the store and to Redis, never to a client.
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
from shared.domain.execution import Execution
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.errors import LeaseLost
from shared.ids import new_token
from shared.queue.dequeue import Dequeuer
from shared.queue.message import QUEUES, TaskMessage
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
    """The step that runs now, for whoever must finish it in the agent's place."""

    claimed_step: ClaimedStep
    pending_writes: PendingWrites
    reporter: StepReporter


class Runner:
    """Executes what bells ask for, in the process that calls it; ``minder`` is that process's own."""

    def __init__(
        self,
        services: Services,
        agents: Mapping[str, Agent],
        minder: StepInterrupter,
        queues: Sequence[str] = QUEUES,
        write_delay_max_s: float = WRITE_DELAY_MAX_S,
    ) -> None:
        self._services = services
        self._store = services.store
        self._interrupter = minder
        self._agent_runner = AgentRunner(services, agents, minder)
        self._recorder = OutcomeRecorder(services, lambda: minder.is_drain_over)
        self._dequeuer = Dequeuer(services.redis, queues, services.settings.worker_concurrency)
        self._claims = Claims(services, minder, write_delay_max_s)
        self._batch_sizer = BatchSizer()
        self._batch_runner = BatchRunner(services, minder, self._claims, self._claim_and_run_chain, write_delay_max_s)
        self._heartbeat_thread = HeartbeatThread(self._batch_runner.on_tick)
        self._heartbeat_thread.start()
        self._in_progress: _StepInProgress | None = None
        self._agent_time_s = 0.0

    def run_message_and_backlog(self, message: TaskMessage) -> None:
        """Answer a bell that Celery handed over, and then those that wait, for as long as that is polite."""
        began = boottime_s()
        bells: Sequence[TaskMessage] = (message,)
        while bells:
            if len(bells) == 1:
                self.run_message(bells[0])
            else:
                self._batch_runner.run(bells)
            if self._interrupter.is_draining or boottime_s() - began > BACKLOG_LOOP_MAX_S:
                return
            bells = self._dequeue()

    def _dequeue(self) -> Sequence[TaskMessage]:
        try:
            taken = self._dequeuer.dequeue(self._batch_sizer.next_size())
        except redis.RedisError as wrong:
            structlog.get_logger().warning("no bell was taken", reason=str(wrong))
            return ()
        for raw in taken.unreadable:
            dead_letter_message(self._services.dead_letters, raw.decode(errors="replace"))
        return taken.messages

    def run_message(self, message: TaskMessage) -> None:
        """Run the step that a bell names, and what the same chain makes ready, as far as it is ours to run."""
        self._claim_and_run_chain(message, partial(self._claims.claim, message))

    def _claim_and_run_chain(self, bell: TaskMessage, claim: Callable[[], ClaimResult | None]) -> None:
        began, self._agent_time_s = boottime_s(), 0.0
        with structlog.contextvars.bound_contextvars(execution_id=bell.execution_id, step=bell.step):
            claimed = claim()
            faults.reach("worker.claimed")
            if claimed is None:
                return
            turn: ClaimedStep | None
            turn, draft = claimed
            while turn is not None:
                with structlog.contextvars.bound_contextvars(
                    step=turn.lease.step, request_id=turn.execution.request_id
                ):
                    turn = self._run_step(turn, draft, may_continue_chain=boottime_s() - began < CHAIN_MAX_S)
        self._batch_sizer.record_duration(self._agent_time_s)

    def force_finish(self, minded: RunningStep, reason: str) -> None:
        """Write the outcome of a step whose agent will not stop; the process ends after it."""
        under_way = self._in_progress
        if under_way is None or reason == "lost":
            return
        log = structlog.get_logger()
        log.error("an agent did not stop and is ended with its process", why=reason, lease=str(minded.lease))
        turn, draft, reporter = under_way.claimed_step, under_way.pending_writes, under_way.reporter
        if reason == "drained":
            self._recorder.release_step(turn, draft, reporter, "its worker shuts down")
        else:
            error = timeout_error(turn) if reason == "timeout" else cancelled_error(turn.execution, turn.step)
            self._recorder.record(turn, draft, error, reporter)
        self._batch_runner.flush()

    def _run_step(self, turn: ClaimedStep, draft: PendingWrites, *, may_continue_chain: bool) -> ClaimedStep | None:
        """Run one claimed step to its decided outcome; answer the next one where the same decision claimed it."""
        reporter = StepReporter(turn.step.agent, turn.step.id, self._log_time)
        with self._interrupter.enforce_limits(turn.lease, turn.timeout_s) as minded:
            heartbeat = Heartbeat(
                self._services,
                draft,
                turn.lease,
                reporter,
                request_stop=partial(self._interrupter.request_stop, minded),
            )
            self._in_progress = _StepInProgress(turn, draft, reporter)
            try:
                with self._heartbeat_thread.attach(heartbeat):
                    outcome = self._agent_runner.run(turn, draft, reporter, minded)
                    faults.reach("worker.agent_returned")
                self._agent_time_s += boottime_s() - turn.began_at
                go_on = may_continue_chain and not self._interrupter.is_draining
                next_token = new_token() if go_on else None
                advance = self._recorder.record(turn, draft, outcome, reporter, next_token=next_token)
            except LeaseLost:
                structlog.get_logger().warning("the lease was lost; what the agent returned is dropped")
                return None
            finally:
                self._in_progress = None
        return self._next_claimed_step(turn, draft.execution, advance)

    @staticmethod
    def _next_claimed_step(turn: ClaimedStep, execution: Execution, advance: Decision) -> ClaimedStep | None:
        """The step that a decision claimed for us, if there is one."""
        if advance.next_step is None or execution.is_done:
            return None
        outputs = dict(turn.outputs)
        outputs |= {output.step: orjson.loads(output.json) for output in advance.outputs}
        return ClaimedStep(execution, execution.lease_of(advance.next_step), outputs)

    def _log_time(self) -> datetime:
        """The time of an agent's line: it must not wait for a store that is away."""
        return self._services.clock.now_or_none() or self._services.clock.now()
