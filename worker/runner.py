"""Runs steps: claims one, runs its agent, records the outcome once, goes on. READ THIS FIRST.

    bell -> load -> claim -> [agent, with a heartbeat beside it] -> complete | fail -> next step of the chain
                      |                                                 |
                    refused: somebody else has it                     refused: the lease is lost, stop quietly

A bell may come twice, late, or for nothing: the claim decides, by one filtered write. Nothing that an agent raises
or returns gets past ``_outcome``; nothing that the store does loses an outcome: it is offered until it is accepted
or refused, or until this worker must end. It speaks to the store and to Redis, never to a client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import orjson
import structlog

from shared import faults
from shared.bootstrap import Services
from shared.domain.execution import Event, Execution, Lease, RunError
from shared.domain.life import Advance, Output, claim, complete, fail
from shared.domain.passing import given_to
from shared.domain.status import StepStatus
from shared.errors import LeaseLost, NotStorable
from shared.ids import new_token
from shared.queue.bell import Bell
from shared.store.clock import since_boot
from shared.store.ledger import MongoLedger
from shared.store.settle import Settled, settle, until_answered
from worker.context import AgentContext
from worker.drain import Drain
from worker.heartbeat import Heartbeat, StepReporter
from worker.loader import Agent
from worker.outcome import judge_exception, judge_input, judge_output, not_storable, unknown_agent

INLINE_MAX_BYTES: Final = 1024 * 1024
CHAIN_MAX_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One claimed step and what is at hand for it: outputs by step id, and up to which line Redis was told."""

    execution: Execution
    lease: Lease
    outputs: Mapping[str, Mapping[str, Any]]
    told: int


class Runner:
    """Executes what bells ask for, in the process that calls it."""

    def __init__(self, services: Services, agents: Mapping[str, Agent], drain: Drain | None = None) -> None:
        self._services = services
        self._drain = drain or Drain(services.settings.drain_s)
        self._store = services.store
        self._agents = agents

    def answer(self, bell: Bell) -> None:
        """Run the step that a bell names, and what the same chain makes ready, as far as it is ours to run."""
        began = since_boot()
        with structlog.contextvars.bound_contextvars(execution_id=bell.execution_id, step=bell.step):
            turn = self._claim(bell)
            faults.reach("worker.claimed")
            while turn is not None:
                with structlog.contextvars.bound_contextvars(
                    step=turn.lease.step, request_id=turn.execution.request_id
                ):
                    may_go_on = since_boot() - began < CHAIN_MAX_S and not self._drain.has_begun()
                    turn = self._run(turn, may_go_on=may_go_on)

    def _claim(self, bell: Bell) -> Turn | None:
        execution = until_answered(
            partial(self._store.load, bell.integrator, bell.execution_id), give_up=self._drain.has_begun
        )
        if execution is None:
            structlog.get_logger().warning("a bell names an execution that is not there")
            return None
        token = new_token()
        settled = settle(
            self._store,
            execution,
            lambda seen: claim(seen, bell.step, token, self._now(), self._services.terms),
            lock_only=True,
            is_mine=lambda seen: seen.steps[bell.step].token == token,
            give_up=self._drain.has_begun,
        )
        if settled is None:
            structlog.get_logger().debug("there is nothing to claim")
            return None
        claimed = settled.record.execution
        # The claim's own line waits for the first write that is told to Redis.
        told = settled.record.lines_total - len(settled.advance.events)
        return Turn(claimed, claimed.lease_of(bell.step), {}, max(told, 0))

    def _run(self, turn: Turn, *, may_go_on: bool) -> Turn | None:
        step = turn.execution.steps[turn.lease.step]
        reporter = StepReporter(step.agent, step.id, self._carried_now)
        settings = self._services.settings
        lost = threading.Event()
        heartbeat = Heartbeat(
            self._store, self._services.publisher, self._services.clock, turn.lease, reporter,
            lease_s=settings.lease_s, heartbeat_s=settings.heartbeat_s, told=turn.told, lost=lost,
        )  # fmt: skip
        began = since_boot()
        with heartbeat:
            outcome = self._outcome(turn, reporter, lost)
            faults.reach("worker.agent_returned")
        said = self._last_words(turn, reporter)
        next_token = new_token() if may_go_on else None
        try:
            settled = self._record(turn, outcome, said, next_token)
        except LeaseLost:
            structlog.get_logger().warning("the lease was lost; what the agent returned is dropped")
            return None
        faults.reach("worker.written")
        if settled is None:
            return None
        self._services.publisher.step_ended(step.agent, since_boot() - began)
        self._services.publisher.advanced(settled.record, settled.advance, as_of=settled.as_of, told=heartbeat.told)
        faults.reach("worker.published")
        return self._next(turn, settled, next_token)

    def _outcome(self, turn: Turn, reporter: StepReporter, lost: threading.Event) -> bytes | RunError:
        """Run the agent; whatever it raises, SystemExit and MemoryError too, is its failure and not the worker's."""
        step = turn.execution.steps[turn.lease.step]
        agent = self._agents.get(step.agent)
        if agent is None:
            return unknown_agent(step)
        catalogue = self._services.catalogue
        given = self._given(turn)
        refused = judge_input(step, catalogue.input_faults(step.agent, given))
        if refused is not None:
            return refused
        try:
            returned = agent.run(given, self._context(turn, reporter, lost))
            return judge_output(turn.execution, step, returned, partial(catalogue.output_faults, step.agent))
        except BaseException as raised:  # noqa: BLE001
            structlog.get_logger().warning("the agent raised", agent=step.agent, exc_info=True)
            return judge_exception(step, raised)

    def _given(self, turn: Turn) -> dict[str, Any]:
        basket = turn.execution.basket
        step = basket.step(turn.lease.step)
        outputs = dict(turn.outputs)
        missing = [need for need in step.needs if need not in outputs]
        if missing:
            read = partial(self._store.read, turn.lease.integrator, turn.execution.id, outputs=missing)
            record = until_answered(read, give_up=self._drain.is_over)
            if record is not None:
                outputs |= {need: orjson.loads(record.outputs[need]) for need in missing}
        run_input = orjson.loads(turn.execution.input)
        return given_to(basket, step.id, run_input, outputs, self._services.catalogue.required_inputs(step.agent))

    def _context(self, turn: Turn, reporter: StepReporter, lost: threading.Event) -> AgentContext:
        step = turn.execution.steps[turn.lease.step]
        timeout_s = turn.execution.basket.step(step.id).timeout_s
        return AgentContext(
            execution_id=turn.execution.id,
            step=step.id,
            attempt=step.claims,
            idempotency_key=f"{turn.execution.id}:{step.id}",
            request_id=turn.execution.request_id,
            deadline=(step.started_at or self._now()) + timedelta(seconds=timeout_s),
            ledger=MongoLedger(self._services.database, self._services.clock, turn.lease.integrator),
            reporter=reporter,
            cancel=lost,
        )

    def _record(
        self, turn: Turn, outcome: bytes | RunError, said: tuple[Event, ...], next_token: str | None
    ) -> Settled | None:
        """Offer the outcome until it is accepted or refused; raises LeaseLost where the step has moved on."""
        lease = turn.lease
        decide = self._decision(lease, outcome, next_token)
        try:
            return settle(
                self._store,
                turn.execution,
                lambda seen: _saying(decide(seen), said),
                lease=lease,
                is_mine=lambda seen: (
                    seen.steps[lease.step].was_under(lease) and not seen.steps[lease.step].holds(lease)
                ),
                give_up=self._drain.is_over,
            )
        except NotStorable as refused:
            if isinstance(outcome, RunError):
                raise
            # A refusal for content is an answer: the step fails, and what could not be stored is left out.
            step = turn.execution.steps[lease.step]
            return self._record(turn, not_storable(step, refused.message), (), None)

    def _decision(
        self, lease: Lease, outcome: bytes | RunError, next_token: str | None
    ) -> Callable[[Execution], Advance]:
        if isinstance(outcome, RunError):
            return lambda seen: fail(seen, lease, outcome, self._now())

        def completion(seen: Execution) -> Advance:
            apart = seen.inline_bytes + len(outcome) > INLINE_MAX_BYTES
            output = Output(lease.step, outcome, apart=apart)
            return complete(seen, lease, output, self._now(), self._services.terms, next_token=next_token)

        return completion

    def _next(self, turn: Turn, settled: Settled, next_token: str | None) -> Turn | None:
        """The step that the same write claimed for us, if there is one."""
        execution = settled.record.execution
        output = settled.advance.output
        for step in execution.steps.values():
            if next_token is not None and step.token == next_token and step.status is StepStatus.RUNNING:
                outputs = dict(turn.outputs)
                if output is not None:
                    outputs[output.step] = orjson.loads(output.json)
                return Turn(execution, execution.lease_of(step.id), outputs, settled.record.lines_total)
        return None

    def _last_words(self, turn: Turn, reporter: StepReporter) -> tuple[Event, ...]:
        """The lines that the completing write takes along; those of an agent that flooded are written before it."""
        report = reporter.take()
        if not report.dropped:
            return tuple(report.events)
        with suppress(NotStorable):
            until_answered(partial(self._store.report, turn.lease, report), give_up=self._drain.is_over)
        return ()

    def _now(self) -> datetime:
        return self._services.clock.now()

    def _carried_now(self) -> datetime:
        """The time of an agent's line: it must not wait for a store that is away."""
        return self._services.clock.glance() or self._now()


def _saying(advance: Advance, said: tuple[Event, ...]) -> Advance:
    """The decision with the agent's last lines before those that tell of it."""
    return replace(advance, events=(*said, *advance.events))
