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
from shared.clock import since_boot
from shared.domain.execution import Event, Execution, RunError
from shared.domain.lifecycle.decision import Advance, Output
from shared.domain.lifecycle.transitions import complete, estrange, fail, release
from shared.errors import LeaseLost, NotStorable
from shared.store.executions.settle import until_answered
from worker.simulated_outcome import Silence
from worker.steps.agent_runner import Outcome, Turn
from worker.steps.outcome_checks import judge_total, not_storable
from worker.steps.pending_writes import Decide, Draft
from worker.steps.reporter import StepReporter

INLINE_MAX_BYTES: Final = 1024 * 1024


class Recorder:
    """Decides by lease; all its verbs raise LeaseLost where the step has moved on."""

    def __init__(self, services: Services, give_up: Callable[[], bool]) -> None:
        """``give_up`` says when this process must end: what the store has not answered by then is left to its lease."""
        self._services = services
        self._store = services.store
        self._give_up = give_up

    def record(
        self, turn: Turn, draft: Draft, outcome: Outcome, reporter: StepReporter, *, next_token: str | None = None
    ) -> Advance:
        """Decide on an outcome, with the agent's last lines; ``next_token`` claims the next step of the chain."""
        if isinstance(outcome, Silence):
            self._fall_silent(turn, draft, reporter)
        said = self._last_words(turn, draft, reporter)
        took_s = since_boot() - turn.began_at
        decide = _saying(said, self._decision(turn, outcome, next_token))

        def failing(refused: NotStorable) -> Decide:
            # A refusal for content is an answer: the step fails, and what could not be stored is left out.
            return self._decision(turn, not_storable(turn.step, refused.message), None)

        instead = failing if isinstance(outcome, bytes) else None
        return draft.decide(decide, agent=turn.step.agent, took_s=took_s, instead=instead)

    def hand_back(self, turn: Turn, draft: Draft, reporter: StepReporter, reason: str) -> Advance:
        """Release a step that this worker cannot finish, so that it goes on elsewhere at once."""

        def decide(seen: Execution) -> Advance:
            return release(seen, turn.lease, self._now(), self._services.terms, reason)

        said = self._last_words(turn, draft, reporter)
        return draft.decide(_saying(said, decide), agent=turn.step.agent, took_s=since_boot() - turn.began_at)

    def _decision(self, turn: Turn, outcome: Outcome, next_token: str | None) -> Decide:
        lease = turn.lease
        if isinstance(outcome, RunError):
            chance = random.random()  # noqa: S311  (jitter; drawn once, for a decision is asked for again and again)
            return lambda seen: fail(seen, lease, outcome, self._now(), chance=chance)
        if not isinstance(outcome, bytes):
            return lambda seen: estrange(seen, lease, self._now())

        def completion(seen: Execution) -> Advance:
            # Judged before by the run as it was claimed; its other branches may have recorded theirs since.
            too_much = judge_total(seen, turn.step, len(outcome))
            if too_much is not None:
                return fail(seen, lease, too_much, self._now())
            apart = seen.inline_bytes + len(outcome) > INLINE_MAX_BYTES
            output = Output(lease.step, outcome, apart=apart)
            return complete(seen, lease, output, self._now(), self._services.terms, next_token=next_token)

        return completion

    def _fall_silent(self, turn: Turn, draft: Draft, reporter: StepReporter) -> NoReturn:
        """Let go of a step whose worker counts as lost, once all that it has told is stored and shown.

        So a poll sees what it sees of most lost workers: the step running, and how far it had come.
        """
        draft.write()  # a report goes by the lease, which may not be stored yet
        report, as_of = reporter.take(), since_boot()
        record = until_answered(partial(self._store.report, turn.lease, report), self._give_up)
        if record is not None:
            self._services.publisher.shown(record, as_of=as_of, told=draft.told)
        raise LeaseLost(f"{turn.step.id} plays a lost worker")

    def _last_words(self, turn: Turn, draft: Draft, reporter: StepReporter) -> tuple[Event, ...]:
        """The lines that the completing write takes along; those of an agent that flooded are written before it."""
        report = reporter.take()
        if not report.dropped:
            return tuple(report.events)
        draft.write()  # a report goes by the lease, which may not be stored yet
        with suppress(NotStorable):
            until_answered(partial(self._store.report, turn.lease, report), self._give_up)
        return ()

    def _now(self) -> datetime:
        return self._services.clock.now()


def _saying(said: tuple[Event, ...], decide: Decide) -> Decide:
    """The decision with the agent's last lines before those that tell of it."""
    if not said:
        return decide

    def saying(seen: Execution) -> Advance:
        advance = decide(seen)
        return replace(advance, events=(*said, *advance.events))

    return saying
