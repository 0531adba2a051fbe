"""Tells Redis what MongoDB has just accepted: bells, view, outputs, log lines and figures, in one pipeline.

Nothing here can fail a run: what Redis does not take is offered again by the reconciler, rendered again by a
reader, or lost as a figure may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import redis
import structlog

from shared.clock import since_boot
from shared.domain.execution import Execution, Record
from shared.domain.lifecycle.decision import Advance
from shared.live import accept_markers, duration_stats, log_stream
from shared.live.render import line_shown, render
from shared.live.views import View, Views
from shared.queue import message

VIEW_AGE_MAX_S: Final = 1.0
TRIM_EVERY_S: Final = 60.0


class Figures(Protocol):
    """Whatever counts what the fleet does; each verb appends to a pipeline."""

    def ended(self, pipe: Any, runs: Mapping[tuple[str, str], int], steps: Sequence[tuple[str, float]]) -> None:
        """Count runs that have come to their end, by basket and status, and steps: their agents and their seconds."""

    def rescued(self, pipe: Any, reason: str) -> None:
        """Count a step that was looked at again."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that was written, for others to hear of: the record after it; lines up to seq ``told`` are known.

    ``took`` says how long the agents took that led to it, in seconds.
    """

    record: Record
    advance: Advance
    told: int = 0
    took: Sequence[tuple[str, float]] = ()


class Publisher:
    """One process's way of telling Redis; see the module's promise."""

    def __init__(
        self, client: redis.Redis, views: Views, figures: Figures, view_age_max_s: float = VIEW_AGE_MAX_S
    ) -> None:
        self._redis = client
        self._views = views
        self._figures = figures
        self._view_age_max_s = view_age_max_s
        self._trimmed_at = -TRIM_EVERY_S
        self._log = structlog.get_logger()

    def accepted(self, advances: Sequence[Advance], outputs: Mapping[str, bytes] | None = None) -> None:
        """Offer runs that were just stored, and show them as queued, with the ``outputs`` that they begin with."""
        pipe = self._redis.pipeline(transaction=False)
        as_of = since_boot()
        told: list[bytes] = []
        for advance in advances:
            record = replace(advance.as_accepted, outputs=outputs or {})
            self._ring(pipe, record, advance.hand_out)
            accept_markers.note(pipe, record.execution)
            view = render(record)
            # A SET NX, cheaper than the script: whoever was there before knows more.
            if view is not None and self._may_show(as_of):
                self._views.put_first(pipe, record.execution.id, view)
            told += _lines_beyond(record, 0)
        log_stream.add(pipe, told)
        self._send(pipe, ", ".join(advance.execution.id for advance in advances))

    def advanced(self, record: Record, advance: Advance, *, as_of: float, told: int = 0) -> None:
        """Publish a decision that was written; how long its agents took is given to :meth:`advanced_all`.

        ``record`` is what the write returned, asked for at ``as_of`` (:func:`since_boot`); lines up to seq
        ``told`` were told before.
        """
        self.advanced_all([Decided(record, advance, told)], as_of=as_of)

    def advanced_all(self, decisions: Sequence[Decided], *, as_of: float) -> None:
        """Tell of decisions on several runs that were written at once, asked for at ``as_of``."""
        pipe = self._redis.pipeline(transaction=False)
        for each in decisions:
            self._ring(pipe, each.record, each.advance.hand_out)
        self._show(pipe, [each.record for each in decisions], as_of)
        outputs = [(each.record.execution.id, output) for each in decisions for output in each.advance.outputs]
        self._views.put_outputs(pipe, {(run_id, output.step): output.json for run_id, output in outputs})
        log_stream.add(pipe, [line for each in decisions for line in _lines_beyond(each.record, each.told)])
        ended = [each.record.execution for each in decisions if each.record.execution.done]
        if ended:
            self._trim_now_and_then(pipe, as_of)
        runs = Counter((execution.basket.name, str(execution.status)) for execution in ended)
        self._figures.ended(pipe, runs, [step for each in decisions for step in each.took])
        duration_stats.note(pipe, [(each.record.execution, each.took) for each in decisions])
        self._send(pipe, ", ".join(each.record.execution.id for each in decisions))

    def rang_in_vain(self, execution: Execution, unanswered: message.Bell) -> None:
        """Ring again, ahead of all others, for a worker that drains and takes nothing any more."""
        if unanswered.step in execution.steps:
            pipe = self._redis.pipeline(transaction=False)
            message.ring(pipe, unanswered, execution.basket.step(unanswered.step).queue, message.AGAIN)
            self._send(pipe, execution.id)

    def shown(self, record: Record, *, as_of: float, told: int) -> None:
        """Show an execution as it stands, and tell the lines beyond seq ``told``."""
        pipe = self._redis.pipeline(transaction=False)
        self._show(pipe, [record], as_of)
        log_stream.add(pipe, _lines_beyond(record, told))
        self._send(pipe, record.execution.id)

    def rescued(self, record: Record, advance: Advance, *, as_of: float, reason: str) -> bool:
        """Offer again what was rescued, ahead of all first offers, and tell of it; False where Redis did not hear."""
        pipe = self._redis.pipeline(transaction=False)
        self._ring(pipe, record, advance.hand_out)
        if advance.events:
            self._show(pipe, [record], as_of)
            log_stream.add(pipe, _lines_beyond(record, record.lines_total - len(advance.events)))
        self._figures.rescued(pipe, reason)
        if record.execution.done:
            self._figures.ended(pipe, {(record.execution.basket.name, str(record.execution.status)): 1}, ())
        return self._send(pipe, record.execution.id)

    def kept(self, execution_id: str, rev: int) -> bool:
        """Keep a live view that still shows ``rev``; False where it must be rendered anew, not for Redis being away."""
        try:
            return self._views.keep(execution_id, rev)
        except redis.RedisError as away:
            self._log.warning("Redis did not keep a view", execution_id=execution_id, reason=str(away))
            return True

    def _ring(self, pipe: Any, record: Record, steps: Iterable[str]) -> None:
        execution = record.execution
        for step in (execution.steps[step_id] for step_id in steps):
            if step.offered_at is not None:
                offer = message.Bell(execution.integrator, execution.id, step.id, step.offered_at)
                message.ring(pipe, offer, execution.basket.step(step.id).queue, message.priority_of(step))

    def _show(self, pipe: Any, records: Iterable[Record], as_of: float) -> None:
        if not self._may_show(as_of):
            return
        views: list[View] = []
        for record in records:
            execution = record.execution
            shown = render(record)
            if shown is None:  # its result is kept apart: what is there tells of an earlier moment
                self._views.drop(pipe, execution.id)
            else:
                views.append(View(execution.id, shown, execution.rev, execution.done))
        self._views.put(pipe, views)

    def _may_show(self, as_of: float) -> bool:
        """False where this process stood still since ``as_of``: others may have gone on; a reader renders anew."""
        return since_boot() - as_of <= self._view_age_max_s

    def _trim_now_and_then(self, pipe: Any, now: float) -> None:
        if now - self._trimmed_at >= TRIM_EVERY_S:
            self._trimmed_at = now
            log_stream.trim(pipe)

    def _send(self, pipe: Any, subject: str) -> bool:
        try:
            pipe.execute()
        except redis.RedisError as away:
            self._log.warning("Redis was not told; the run goes on", subject=subject, reason=str(away))
            return False
        return True


def _lines_beyond(record: Record, told: int) -> list[bytes]:
    """The lines of a record beyond seq ``told``, as JSON."""
    first = max(told + 1, record.first_seq)
    new = record.events[first - record.first_seq :]
    return [line_shown(record.execution.id, seq, event) for seq, event in enumerate(new, first)]
