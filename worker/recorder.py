"""Records what came of a claimed step, once: offers the outcome until the store accepts or refuses it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from shared.bootstrap import Services
from shared.domain.execution import Event, Execution, Lease, RunError
from shared.domain.life import complete, estrange, fail, release
from shared.domain.terms import Advance, Output
from shared.errors import NotStorable
from shared.store.settle import Settled, settle, until_answered
from worker.attempt import Outcome, Turn
from worker.heartbeat import StepReporter
from worker.outcome import not_storable

INLINE_MAX_BYTES: Final = 1024 * 1024


class Recorder:
    """Writes outcomes by lease; all its verbs raise LeaseLost where the step has moved on."""

    def __init__(self, services: Services, give_up: Callable[[], bool]) -> None:
        """``give_up`` says when this process must end: what the store has not answered by then is left to its lease."""
        self._services = services
        self._give_up = give_up
        self._store = services.store

    def record(
        self, turn: Turn, outcome: Outcome, reporter: StepReporter, *, next_token: str | None = None
    ) -> Settled | None:
        """Write an outcome and the agent's last lines; ``next_token`` claims the next step of the chain with it."""
        said = self._last_words(turn, reporter)
        try:
            return self._offer(turn, self._decision(turn.lease, outcome, next_token), said)
        except NotStorable as refused:
            if not isinstance(outcome, bytes):
                raise
            # A refusal for content is an answer: the step fails, and what could not be stored is left out.
            error = not_storable(turn.step, refused.message)
            return self._offer(turn, self._decision(turn.lease, error, None), ())

    def hand_back(self, turn: Turn, reporter: StepReporter, reason: str) -> Settled | None:
        """Release a step that this worker cannot finish, so that it goes on elsewhere at once."""

        def decide(seen: Execution) -> Advance:
            return release(seen, turn.lease, self._now(), self._services.terms, reason)

        return self._offer(turn, decide, self._last_words(turn, reporter))

    def _offer(self, turn: Turn, decide: Callable[[Execution], Advance], said: tuple[Event, ...]) -> Settled | None:
        lease = turn.lease
        return settle(
            self._store,
            turn.execution,
            lambda seen: _saying(decide(seen), said),
            lease=lease,
            is_mine=lambda seen: seen.steps[lease.step].was_under(lease) and not seen.steps[lease.step].holds(lease),
            give_up=self._give_up,
        )

    def _decision(self, lease: Lease, outcome: Outcome, next_token: str | None) -> Callable[[Execution], Advance]:
        if isinstance(outcome, RunError):
            chance = random.random()  # noqa: S311  (jitter; drawn once, for a decision is asked for again and again)
            return lambda seen: fail(seen, lease, outcome, self._now(), chance=chance)
        if not isinstance(outcome, bytes):
            return lambda seen: estrange(seen, lease, self._now())

        def completion(seen: Execution) -> Advance:
            apart = seen.inline_bytes + len(outcome) > INLINE_MAX_BYTES
            output = Output(lease.step, outcome, apart=apart)
            return complete(seen, lease, output, self._now(), self._services.terms, next_token=next_token)

        return completion

    def _last_words(self, turn: Turn, reporter: StepReporter) -> tuple[Event, ...]:
        """The lines that the completing write takes along; those of an agent that flooded are written before it."""
        report = reporter.take()
        if not report.dropped:
            return tuple(report.events)
        with suppress(NotStorable):
            until_answered(partial(self._store.report, turn.lease, report), self._give_up)
        return ()

    def _now(self) -> datetime:
        return self._services.clock.now()


def _saying(advance: Advance, said: tuple[Event, ...]) -> Advance:
    """The decision with the agent's last lines before those that tell of it."""
    return replace(advance, events=(*said, *advance.events))
