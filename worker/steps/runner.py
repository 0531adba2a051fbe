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
from shared.clock import since_boot
from shared.domain.execution import Execution
from shared.domain.lifecycle.decision import Advance
from shared.domain.lifecycle.step_transitions import cancelled_error
from shared.errors import LeaseLost
from shared.ids import new_token
from shared.queue.dequeue import Taker
from shared.queue.message import QUEUES, Bell
from worker.agent_loader import Agent
from worker.steps.agent_runner import Attempts, Turn, late
from worker.steps.batch_runner import Batches, Pace
from worker.steps.claims import Claimed, Claims
from worker.steps.heartbeat import Companion, Heartbeat
from worker.steps.outcome_recorder import Recorder
from worker.steps.pending_writes import UNWRITTEN_MAX_S, Draft
from worker.steps.reporter import StepReporter
from worker.steps.unreadable_message import drop
from worker.supervision.step_interrupter import Minded, Minder

CHAIN_MAX_S: Final = 600.0
TAKES_FOR_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """The step that runs now, for whoever must finish it in the agent's place."""

    turn: Turn
    draft: Draft
    reporter: StepReporter


class Runner:
    """Executes what bells ask for, in the process that calls it; ``minder`` is that process's own."""

    def __init__(
        self,
        services: Services,
        agents: Mapping[str, Agent],
        minder: Minder,
        queues: Sequence[str] = QUEUES,
        unwritten_max_s: float = UNWRITTEN_MAX_S,
    ) -> None:
        self._services = services
        self._store = services.store
        self._minder = minder
        self._attempts = Attempts(services, agents, minder)
        self._recorder = Recorder(services, lambda: minder.is_drain_over)
        self._taker = Taker(services.redis, queues, services.settings.worker_concurrency)
        self._claims = Claims(services, minder, unwritten_max_s)
        self._pace = Pace()
        self._batches = Batches(services, minder, self._claims, self._answer, unwritten_max_s)
        self._companion = Companion(self._batches.tick)
        self._companion.start()
        self._under_way: _UnderWay | None = None
        self._agents_took_s = 0.0

    def serve(self, bell: Bell) -> None:
        """Answer a bell that Celery handed over, and then those that wait, for as long as that is polite."""
        began = since_boot()
        bells: Sequence[Bell] = (bell,)
        while bells:
            if len(bells) == 1:
                self.answer(bells[0])
            else:
                self._batches.answer(bells)
            if self._minder.is_draining or since_boot() - began > TAKES_FOR_S:
                return
            bells = self._take()

    def _take(self) -> Sequence[Bell]:
        try:
            taken = self._taker.take(self._pace.next())
        except redis.RedisError as wrong:
            structlog.get_logger().warning("no bell was taken", reason=str(wrong))
            return ()
        for raw in taken.unreadable:
            drop(self._services.dead_letters, raw.decode(errors="replace"))
        return taken.bells

    def answer(self, bell: Bell) -> None:
        """Run the step that a bell names, and what the same chain makes ready, as far as it is ours to run."""
        self._answer(bell, partial(self._claims.claim, bell))

    def _answer(self, bell: Bell, claim: Callable[[], Claimed | None]) -> None:
        began, self._agents_took_s = since_boot(), 0.0
        with structlog.contextvars.bound_contextvars(execution_id=bell.execution_id, step=bell.step):
            claimed = claim()
            faults.reach("worker.claimed")
            if claimed is None:
                return
            turn: Turn | None
            turn, draft = claimed
            while turn is not None:
                with structlog.contextvars.bound_contextvars(
                    step=turn.lease.step, request_id=turn.execution.request_id
                ):
                    turn = self._run(turn, draft, may_go_on=since_boot() - began < CHAIN_MAX_S)
        self._pace.note(self._agents_took_s)

    def finish(self, minded: Minded, why: str) -> None:
        """Write the outcome of a step whose agent will not stop; the process ends after it."""
        under_way = self._under_way
        if under_way is None or why == "lost":
            return
        log = structlog.get_logger()
        log.error("an agent did not stop and is ended with its process", why=why, lease=str(minded.lease))
        turn, draft, reporter = under_way.turn, under_way.draft, under_way.reporter
        if why == "drained":
            self._recorder.hand_back(turn, draft, reporter, "its worker shuts down")
        else:
            error = late(turn) if why == "timeout" else cancelled_error(turn.execution, turn.step)
            self._recorder.record(turn, draft, error, reporter)
        self._batches.wind_up()

    def _run(self, turn: Turn, draft: Draft, *, may_go_on: bool) -> Turn | None:
        """Run one claimed step to its decided outcome; answer the next one where the same decision claimed it."""
        reporter = StepReporter(turn.step.agent, turn.step.id, self._carried_now)
        with self._minder.minding(turn.lease, turn.timeout_s) as minded:
            heartbeat = Heartbeat(self._services, draft, turn.lease, reporter, stop=partial(self._minder.ask, minded))
            self._under_way = _UnderWay(turn, draft, reporter)
            try:
                with self._companion.beside(heartbeat):
                    outcome = self._attempts.run(turn, draft, reporter, minded)
                    faults.reach("worker.agent_returned")
                self._agents_took_s += since_boot() - turn.began_at
                go_on = may_go_on and not self._minder.is_draining
                next_token = new_token() if go_on else None
                advance = self._recorder.record(turn, draft, outcome, reporter, next_token=next_token)
            except LeaseLost:
                structlog.get_logger().warning("the lease was lost; what the agent returned is dropped")
                return None
            finally:
                self._under_way = None
        return self._next(turn, draft.execution, advance)

    @staticmethod
    def _next(turn: Turn, execution: Execution, advance: Advance) -> Turn | None:
        """The step that a decision claimed for us, if there is one."""
        if advance.run_here is None or execution.done:
            return None
        outputs = dict(turn.outputs)
        outputs |= {output.step: orjson.loads(output.json) for output in advance.outputs}
        return Turn(execution, execution.lease_of(advance.run_here), outputs)

    def _carried_now(self) -> datetime:
        """The time of an agent's line: it must not wait for a store that is away."""
        return self._services.clock.glance() or self._services.clock.now()
