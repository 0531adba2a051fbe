"""Publisher: after a write to MongoDB, sends task messages, views, outputs, log lines and metrics to Redis.

All go in one pipeline, and an error of Redis never fails a run: a lost task message is sent again by the reconciler,
a lost view is rendered again by a reader, and a metric may be lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import redis
import structlog

from shared.clock import boottime_s
from shared.domain.execution import OWN_BASKET, PRIORITY_REOFFER, Execution, ExecutionRecord
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.log_events import STEP_FAILED, STEP_RETRYING
from shared.domain.status import ExecutionStatus
from shared.live import accept_markers, duration_stats, log_stream
from shared.live.redis_client import drop_if_demoted
from shared.live.render import render, render_log_line
from shared.live.views import VIEW_STALE_AFTER_S, RenderedView, ViewCache
from shared.queue import message
from shared.telemetry.fleet_counters import FleetCounters
from shared.telemetry.tracing.tracer import Tracer
from shared.telemetry.window_counters import SUBMITTED, RunEvent

TRIM_EVERY_S: Final = 60.0
_FAILURE_EVENTS: Final = frozenset({STEP_FAILED, STEP_RETRYING})


def encode_no_copy(_decision: Decision, _outputs: Mapping[str, bytes]) -> None:
    """Return None: no copy of an accepted run is kept for workers."""


@dataclass(frozen=True, slots=True)
class SavedDecision:
    """A saved decision to publish, with the record after it; log lines up to ``published_seq`` are published already.

    ``agent_durations`` are the (agent, seconds) of the attempts that led to it.
    """

    record: ExecutionRecord
    decision: Decision
    published_seq: int = 0
    agent_durations: Sequence[tuple[str, float]] = ()


class Publisher:
    """Publishes the changes of one process to Redis; its methods never raise an error of Redis."""

    def __init__(
        self,
        client: redis.Redis,
        views: ViewCache,
        metrics: FleetCounters,
        view_age_max_s: float = VIEW_STALE_AFTER_S,
        encode_accepted: Callable[[Decision, Mapping[str, bytes]], bytes | None] = encode_no_copy,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        """``encode_accepted`` encodes a run that was just stored; by default no copies of runs are kept for workers.

        ``tracer`` gets every decision that is published: the spans that end with it are exported.
        """
        self._redis = client
        self._views = views
        self._metrics = metrics
        self._view_age_max_s = view_age_max_s
        self._encode_accepted = encode_accepted
        self._tracer = tracer
        self._trimmed_at = -TRIM_EVERY_S
        self._log = structlog.get_logger()

    def publish_accepted(self, decisions: Sequence[Decision], outputs: Mapping[str, bytes] | None = None) -> None:
        """Publish runs that were just stored: copies, task messages, accept markers, first views, log lines.

        ``outputs`` are those that the runs start with (retries).
        """
        pipe = self._redis.pipeline(transaction=False)
        as_of = boottime_s()
        records: list[tuple[ExecutionRecord, int]] = []
        for decision in decisions:
            record = replace(decision.initial_record, outputs=outputs or {})
            view = render(record)
            records.append((record, 0))
            # Before the message: a worker puts its views after these.
            if view is not None and self._is_current(as_of):
                # A worker begins only a run with one ready step without a read (``worker/steps/batch_runner.py``).
                is_chain = len(decision.dispatch) == 1 and not record.execution.stateful
                copy = self._encode_accepted(decision, record.outputs) if is_chain else None
                self._views.put_first(pipe, record.execution.integrator, record.execution.id, view, copy)
            self._enqueue(pipe, record, decision.dispatch)
            if record.execution.has_due_time_of_its_own:
                accept_markers.mark_accepted(pipe, record.execution)
        _append_lines(pipe, records)
        executions = [decision.execution for decision in decisions]
        self._metrics.count_accepted(pipe, [RunEvent(run.integrator, run.created_at, SUBMITTED) for run in executions])
        self._send(pipe, ", ".join(run.id for run in executions))

    def publish_decision(
        self, record: ExecutionRecord, decision: Decision, *, as_of: float, published_seq: int = 0
    ) -> None:
        """Publish one saved decision; to publish durations of agents as well, use :meth:`publish_decisions`.

        ``record`` is the reply to the write, which was sent at ``as_of`` (:func:`shared.clock.boottime_s`); log lines
        up to ``published_seq`` are published already.
        """
        self.publish_decisions([SavedDecision(record, decision, published_seq)], as_of=as_of)

    def publish_decisions(self, decisions: Sequence[SavedDecision], *, as_of: float) -> None:
        """Publish saved decisions on several runs, whose common write was sent at ``as_of``."""
        pipe = self._redis.pipeline(transaction=False)
        for saved in decisions:
            self._enqueue(pipe, saved.record, saved.decision.dispatch)
        self._put_views(pipe, [saved.record for saved in decisions], as_of)
        outputs = [(saved.record.execution, output) for saved in decisions for output in saved.decision.outputs]
        self._views.put_outputs(pipe, {(run.integrator, run.id, output.step): output.json for run, output in outputs})
        _append_lines(pipe, [(saved.record, saved.published_seq) for saved in decisions])
        ended = [saved.record.execution for saved in decisions if saved.record.execution.is_done]
        if ended and as_of - self._trimmed_at >= TRIM_EVERY_S:
            self._trimmed_at = as_of
            log_stream.trim_stream(pipe)
        runs = Counter((_metric_label(execution), str(execution.status)) for execution in ended)
        durations = [step for saved in decisions for step in saved.agent_durations]
        self._metrics.count_ended(pipe, runs, durations, list(map(_end_event, ended)))
        self._count_failures(pipe, [saved.decision for saved in decisions])
        duration_stats.record_durations(pipe, [(saved.record.execution, saved.agent_durations) for saved in decisions])
        self._send(pipe, ", ".join(saved.record.execution.id for saved in decisions))
        if self._tracer is not None:
            for saved in decisions:
                self._tracer.saved(saved.record, saved.decision)

    def redeliver(self, execution: Execution, rejected: message.TaskMessage) -> None:
        """Send a task message again, before all first offers, for a worker that drains and starts no step any more."""
        if rejected.step in execution.steps:
            pipe = self._redis.pipeline(transaction=False)
            message.enqueue(pipe, rejected, execution.basket.step(rejected.step).queue, PRIORITY_REOFFER)
            self._send(pipe, execution.id)

    def publish_view(self, record: ExecutionRecord, *, as_of: float, published_seq: int) -> None:
        """Publish the current view of an execution, and its log lines after ``published_seq``."""
        pipe = self._redis.pipeline(transaction=False)
        self._put_views(pipe, [record], as_of)
        _append_lines(pipe, [(record, published_seq)])
        self._send(pipe, record.execution.id)

    def publish_rescue(self, record: ExecutionRecord, decision: Decision, *, as_of: float, reason: str) -> bool:
        """Publish a rescue: the task message, before all first offers, view and log lines; False if Redis is away."""
        pipe = self._redis.pipeline(transaction=False)
        self._enqueue(pipe, record, decision.dispatch)
        if decision.events:
            self._put_views(pipe, [record], as_of)
            _append_lines(pipe, [(record, record.lines_total - len(decision.events))])
        self._metrics.count_rescue(pipe, reason)
        self._count_failures(pipe, [decision])
        if record.execution.is_done:
            ended = (_metric_label(record.execution), str(record.execution.status))
            self._metrics.count_ended(pipe, {ended: 1}, (), [_end_event(record.execution)])
        if self._tracer is not None:
            self._tracer.saved(record, decision)
        return self._send(pipe, record.execution.id)

    def extend_view(self, integrator: str, execution_id: str, rev: int) -> bool:
        """Extend the TTL of a view that shows ``rev``; False if it must be rendered again, True if Redis is away."""
        try:
            return self._views.extend_ttl(integrator, execution_id, rev)
        except redis.RedisError as error:
            self._log.warning("Redis is away: a view was not extended", execution_id=execution_id, reason=str(error))
            drop_if_demoted(self._redis, error)
            return True

    def _count_failures(self, pipe: Any, decisions: Iterable[Decision]) -> None:
        """Count the attempts that failed, by the log lines that say so."""
        failures: Counter[tuple[str, str]] = Counter()
        retries = 0
        for event in (event for decision in decisions for event in decision.events):
            if event.event in _FAILURE_EVENTS:
                failures[event.agent, str(orjson.loads(event.data).get("error_code"))] += 1
                retries += event.event == STEP_RETRYING
        self._metrics.count_failures(pipe, failures, retries)

    def _enqueue(self, pipe: Any, record: ExecutionRecord, steps: Iterable[str]) -> None:
        execution = record.execution
        for step in (execution.steps[step_id] for step_id in steps):
            if step.offered_at is not None:
                offer = message.TaskMessage(execution.integrator, execution.id, step.id, step.offered_at)
                message.enqueue(pipe, offer, execution.basket.step(step.id).queue, step.priority)

    def _put_views(self, pipe: Any, records: Iterable[ExecutionRecord], as_of: float) -> None:
        if not self._is_current(as_of):
            return
        views: list[RenderedView] = []
        for record in records:
            execution = record.execution
            body = render(record)
            if body is None:  # an output of the result is not at hand, and the stored view is older
                self._views.invalidate(pipe, execution.integrator, execution.id)
            else:
                views.append(RenderedView(execution.integrator, execution.id, body, execution.rev, execution.is_done))
        self._views.put(pipe, views)

    def _is_current(self, as_of: float) -> bool:
        """Return False if this process was suspended since ``as_of``, so that its view may be stale.

        Others may have written since; a reader renders the view again.
        """
        return boottime_s() - as_of <= self._view_age_max_s

    def _send(self, pipe: Any, subject: str) -> bool:
        try:
            pipe.execute()
        except redis.RedisError as error:
            self._log.warning("Redis is away: a change was not published", subject=subject, reason=str(error))
            drop_if_demoted(self._redis, error)
            return False
        return True


def _end_event(run: Execution) -> RunEvent:
    code = run.error.error_code if run.error is not None and run.status is ExecutionStatus.FAILED else None
    ended_at = run.finished_at or run.created_at
    return RunEvent(run.integrator, ended_at, str(run.status), duration_stats.run_duration_s(run), code)


def _metric_label(execution: Execution) -> str:
    """Return the basket's name for the metrics, which every key may read: not that of one integrator's own basket."""
    return OWN_BASKET if execution.kind == OWN_BASKET else execution.basket.name


def _append_lines(pipe: Any, records: Iterable[tuple[ExecutionRecord, int]]) -> None:
    """Append to ``pipe`` the log lines of each record after a sequence number, with one command for each integrator."""
    lines: dict[str, list[bytes]] = {}
    for record, published_seq in records:
        lines.setdefault(record.execution.integrator, []).extend(_lines_after(record, published_seq))
    for integrator, lines_of_one in lines.items():
        log_stream.append_lines(pipe, integrator, lines_of_one)


def _lines_after(record: ExecutionRecord, published_seq: int) -> list[bytes]:
    first_seq = max(published_seq + 1, record.first_seq)
    events = record.events[first_seq - record.first_seq :]
    return [render_log_line(record.execution.id, seq, event) for seq, event in enumerate(events, first_seq)]
