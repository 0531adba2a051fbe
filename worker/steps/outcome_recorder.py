"""Turns what came of an attempt into a decision, and puts it into the chain's draft."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, NoReturn

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Execution, LogEvent, RunError
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.transitions import complete, fail, release, release_unknown_agent
from shared.errors import LeaseLost, NotStorable
from shared.store.executions.settle import retry_until_answered
from worker.simulated_outcome import NoOutcome
from worker.steps.agent_runner import ClaimedStep, Outcome
from worker.steps.outcome_checks import check_total_size, not_storable_error
from worker.steps.pending_writes import DecideFn, PendingWrites
from worker.steps.reporter import StepReporter

INLINE_OUTPUTS_MAX_BYTES: Final = 1024 * 1024


class OutcomeRecorder:
    """Decides by lease; all its verbs raise LeaseLost where the step has moved on."""

    def __init__(self, services: Services, give_up: Callable[[], bool]) -> None:
        """``give_up`` says when this process must end: what the store has not answered by then is left to its lease."""
        self._services = services
        self._store = services.store
        self._give_up = give_up

    def record(
        self,
        turn: ClaimedStep,
        draft: PendingWrites,
        outcome: Outcome,
        reporter: StepReporter,
        *,
        next_token: str | None = None,
    ) -> Decision:
        """Decide on an outcome, with the agent's last lines; ``next_token`` claims the next step of the chain."""
        if isinstance(outcome, NoOutcome):
            self._simulate_worker_loss(turn, draft, reporter)
        said = self._final_log_lines(turn, draft, reporter)
        took_s = boottime_s() - turn.began_at
        decide = _with_log_lines(said, self._decide_fn_of(turn, outcome, next_token))

        def failing(refused: NotStorable) -> DecideFn:
            # A refusal for content is an answer: the step fails, and what could not be stored is left out.
            return self._decide_fn_of(turn, not_storable_error(turn.step, refused.message), None)

        instead = failing if isinstance(outcome, bytes) else None
        return draft.decide(decide, agent=turn.step.agent, took_s=took_s, fallback=instead)

    def release_step(self, turn: ClaimedStep, draft: PendingWrites, reporter: StepReporter, reason: str) -> Decision:
        """Release a step that this worker cannot finish, so that it goes on elsewhere at once."""

        def decide(seen: Execution) -> Decision:
            return release(seen, turn.lease, self._now(), self._services.timings, reason)

        said = self._final_log_lines(turn, draft, reporter)
        return draft.decide(_with_log_lines(said, decide), agent=turn.step.agent, took_s=boottime_s() - turn.began_at)

    def _decide_fn_of(self, turn: ClaimedStep, outcome: Outcome, next_token: str | None) -> DecideFn:
        lease = turn.lease
        if isinstance(outcome, RunError):
            chance = random.random()  # noqa: S311  (jitter; drawn once, for a decision is asked for again and again)
            return lambda seen: fail(seen, lease, outcome, self._now(), jitter=chance)
        if not isinstance(outcome, bytes):
            return lambda seen: release_unknown_agent(seen, lease, self._now())

        def completion(seen: Execution) -> Decision:
            # Judged before by the run as it was claimed; its other branches may have recorded theirs since.
            too_much = check_total_size(seen, turn.step, len(outcome))
            if too_much is not None:
                return fail(seen, lease, too_much, self._now())
            apart = seen.inline_bytes + len(outcome) > INLINE_OUTPUTS_MAX_BYTES
            output = StepOutput(lease.step, outcome, is_external=apart)
            return complete(seen, lease, output, self._now(), self._services.timings, next_token=next_token)

        return completion

    def _simulate_worker_loss(self, turn: ClaimedStep, draft: PendingWrites, reporter: StepReporter) -> NoReturn:
        """Let go of a step whose worker counts as lost, once all that it has told is stored and shown.

        So a poll sees what it sees of most lost workers: the step running, and how far it had come.
        """
        draft.write()  # a report goes by the lease, which may not be stored yet
        report, as_of = reporter.take_report(), boottime_s()
        record = retry_until_answered(partial(self._store.report, turn.lease, report), self._give_up)
        if record is not None:
            self._services.publisher.publish_view(record, as_of=as_of, published_seq=draft.published_seq)
        raise LeaseLost(f"{turn.step.id} plays a lost worker")

    def _final_log_lines(self, turn: ClaimedStep, draft: PendingWrites, reporter: StepReporter) -> tuple[LogEvent, ...]:
        """The lines that the completing write takes along; those of an agent that flooded are written before it."""
        report = reporter.take_report()
        if not report.dropped:
            return tuple(report.events)
        draft.write()  # a report goes by the lease, which may not be stored yet
        with suppress(NotStorable):
            retry_until_answered(partial(self._store.report, turn.lease, report), self._give_up)
        return ()

    def _now(self) -> datetime:
        return self._services.clock.now()


def _with_log_lines(said: tuple[LogEvent, ...], decide: DecideFn) -> DecideFn:
    """The decision with the agent's last lines before those that tell of it."""
    if not said:
        return decide

    def saying(seen: Execution) -> Decision:
        advance = decide(seen)
        return replace(advance, events=(*said, *advance.events))

    return saying
