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

from shared.clock import boottime_s
from shared.domain.execution import Execution, ExecutionRecord
from shared.domain.lifecycle.decision import Decision
from shared.live import accept_markers, duration_stats, log_stream
from shared.live.render import render, render_log_line
from shared.live.views import RenderedView, ViewCache
from shared.queue import message

VIEW_STALE_AFTER_S: Final = 1.0
TRIM_EVERY_S: Final = 60.0


class MetricsSink(Protocol):
    """Whatever counts what the fleet does; each verb appends to a pipeline."""

    def count_ended(self, pipe: Any, runs: Mapping[tuple[str, str], int], steps: Sequence[tuple[str, float]]) -> None:
        """Count runs that have come to their end, by basket and status, and steps: their agents and their seconds."""

    def count_rescue(self, pipe: Any, reason: str) -> None:
        """Count a step that was looked at again."""


@dataclass(frozen=True, slots=True)
class SavedDecision:
    """A decision that was written, for others to hear of: the record after it; lines up to seq ``told`` are known.

    ``took`` says how long the agents took that led to it, in seconds.
    """

    record: ExecutionRecord
    decision: Decision
    published_seq: int = 0
    agent_durations: Sequence[tuple[str, float]] = ()


class Publisher:
    """One process's way of telling Redis; see the module's promise."""

    def __init__(
        self, client: redis.Redis, views: ViewCache, metrics: MetricsSink, view_age_max_s: float = VIEW_STALE_AFTER_S
    ) -> None:
        self._redis = client
        self._views = views
        self._figures = metrics
        self._view_age_max_s = view_age_max_s
        self._trimmed_at = -TRIM_EVERY_S
        self._log = structlog.get_logger()

    def publish_accepted(self, decisions: Sequence[Decision], outputs: Mapping[str, bytes] | None = None) -> None:
        """Offer runs that were just stored, and show them as queued, with the ``outputs`` that they begin with."""
        pipe = self._redis.pipeline(transaction=False)
        as_of = boottime_s()
        told: list[bytes] = []
        for advance in decisions:
            record = replace(advance.initial_record, outputs=outputs or {})
            self._enqueue(pipe, record, advance.dispatch)
            accept_markers.mark_accepted(pipe, record.execution)
            view = render(record)
            # A SET NX, cheaper than the script: whoever was there before knows more.
            if view is not None and self._is_current(as_of):
                self._views.put_if_absent(pipe, record.execution.id, view)
            told += _lines_after(record, 0)
        log_stream.append_lines(pipe, told)
        self._send(pipe, ", ".join(advance.execution.id for advance in decisions))

    def publish_decision(
        self, record: ExecutionRecord, decision: Decision, *, as_of: float, published_seq: int = 0
    ) -> None:
        """Publish a decision that was written; how long its agents took is given to :meth:`advanced_all`.

        ``record`` is what the write returned, asked for at ``as_of`` (:func:`since_boot`); lines up to seq
        ``told`` were told before.
        """
        self.publish_decisions([SavedDecision(record, decision, published_seq)], as_of=as_of)

    def publish_decisions(self, decisions: Sequence[SavedDecision], *, as_of: float) -> None:
        """Tell of decisions on several runs that were written at once, asked for at ``as_of``."""
        pipe = self._redis.pipeline(transaction=False)
        for each in decisions:
            self._enqueue(pipe, each.record, each.decision.dispatch)
        self._put_views(pipe, [each.record for each in decisions], as_of)
        outputs = [(each.record.execution.id, output) for each in decisions for output in each.decision.outputs]
        self._views.put_outputs(pipe, {(run_id, output.step): output.json for run_id, output in outputs})
        log_stream.append_lines(
            pipe, [line for each in decisions for line in _lines_after(each.record, each.published_seq)]
        )
        ended = [each.record.execution for each in decisions if each.record.execution.is_done]
        if ended:
            self._trim_now_and_then(pipe, as_of)
        runs = Counter((execution.basket.name, str(execution.status)) for execution in ended)
        self._figures.count_ended(pipe, runs, [step for each in decisions for step in each.agent_durations])
        duration_stats.record_durations(pipe, [(each.record.execution, each.agent_durations) for each in decisions])
        self._send(pipe, ", ".join(each.record.execution.id for each in decisions))

    def redeliver(self, execution: Execution, rejected: message.TaskMessage) -> None:
        """Ring again, ahead of all others, for a worker that drains and takes nothing any more."""
        if rejected.step in execution.steps:
            pipe = self._redis.pipeline(transaction=False)
            message.enqueue(pipe, rejected, execution.basket.step(rejected.step).queue, message.PRIORITY_REOFFER)
            self._send(pipe, execution.id)

    def publish_view(self, record: ExecutionRecord, *, as_of: float, published_seq: int) -> None:
        """Show an execution as it stands, and tell the lines beyond seq ``told``."""
        pipe = self._redis.pipeline(transaction=False)
        self._put_views(pipe, [record], as_of)
        log_stream.append_lines(pipe, _lines_after(record, published_seq))
        self._send(pipe, record.execution.id)

    def publish_rescue(self, record: ExecutionRecord, decision: Decision, *, as_of: float, reason: str) -> bool:
        """Offer again what was rescued, ahead of all first offers, and tell of it; False where Redis did not hear."""
        pipe = self._redis.pipeline(transaction=False)
        self._enqueue(pipe, record, decision.dispatch)
        if decision.events:
            self._put_views(pipe, [record], as_of)
            log_stream.append_lines(pipe, _lines_after(record, record.lines_total - len(decision.events)))
        self._figures.count_rescue(pipe, reason)
        if record.execution.is_done:
            self._figures.count_ended(pipe, {(record.execution.basket.name, str(record.execution.status)): 1}, ())
        return self._send(pipe, record.execution.id)

    def extend_view(self, execution_id: str, rev: int) -> bool:
        """Keep a live view that still shows ``rev``; False where it must be rendered anew, not for Redis being away."""
        try:
            return self._views.extend_ttl(execution_id, rev)
        except redis.RedisError as away:
            self._log.warning("Redis did not keep a view", execution_id=execution_id, reason=str(away))
            return True

    def _enqueue(self, pipe: Any, record: ExecutionRecord, steps: Iterable[str]) -> None:
        execution = record.execution
        for step in (execution.steps[step_id] for step_id in steps):
            if step.offered_at is not None:
                offer = message.TaskMessage(execution.integrator, execution.id, step.id, step.offered_at)
                message.enqueue(pipe, offer, execution.basket.step(step.id).queue, message.priority_of(step))

    def _put_views(self, pipe: Any, records: Iterable[ExecutionRecord], as_of: float) -> None:
        if not self._is_current(as_of):
            return
        views: list[RenderedView] = []
        for record in records:
            execution = record.execution
            shown = render(record)
            if shown is None:  # its result is kept apart: what is there tells of an earlier moment
                self._views.invalidate(pipe, execution.id)
            else:
                views.append(RenderedView(execution.id, shown, execution.rev, execution.is_done))
        self._views.put(pipe, views)

    def _is_current(self, as_of: float) -> bool:
        """False where this process stood still since ``as_of``: others may have gone on; a reader renders anew."""
        return boottime_s() - as_of <= self._view_age_max_s

    def _trim_now_and_then(self, pipe: Any, now: float) -> None:
        if now - self._trimmed_at >= TRIM_EVERY_S:
            self._trimmed_at = now
            log_stream.trim_stream(pipe)

    def _send(self, pipe: Any, subject: str) -> bool:
        try:
            pipe.execute()
        except redis.RedisError as away:
            self._log.warning("Redis was not told; the run goes on", subject=subject, reason=str(away))
            return False
        return True


def _lines_after(record: ExecutionRecord, told: int) -> list[bytes]:
    """The lines of a record beyond seq ``told``, as JSON."""
    first = max(told + 1, record.first_seq)
    new = record.events[first - record.first_seq :]
    return [render_log_line(record.execution.id, seq, event) for seq, event in enumerate(new, first)]
