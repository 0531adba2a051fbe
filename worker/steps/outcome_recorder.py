"""Turns the outcome of an attempt into a decision, and adds it to the pending writes of the chain."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final, NoReturn

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Execution, Lease, RunError, Step
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.step_transitions import with_steps
from shared.domain.lifecycle.transitions import complete, fail, release, release_unknown_agent
from shared.errors import LeaseLost, NotStorable
from shared.store.executions.settle import retry_until_reply
from shared.store.executions.updates import ProgressReport
from worker.simulated_outcome import NoOutcome
from worker.steps.agent_runner import KeyMissing, Outcome, PostponedFailure, WorkerDrains
from worker.steps.claims import ClaimedStep
from worker.steps.outcome_checks import check_total_size, not_storable_error
from worker.steps.pending_writes import DecideFn
from worker.steps.protection.step_protection import ProtectedOutput

INLINE_OUTPUTS_MAX_BYTES: Final = 1024 * 1024


class OutcomeRecorder:
    """Records outcomes by lease."""

    def __init__(self, services: Services, give_up: Callable[[], bool]) -> None:
        """``give_up`` returns whether this process must end: a step without a reply by then is left to its lease."""
        self._services = services
        self._give_up = give_up

    def record(self, claimed_step: ClaimedStep, outcome: Outcome, *, next_token: str | None = None) -> Decision:
        """Decide on an outcome, with the agent's last lines; ``next_token`` claims the next step of the chain.

        Raises LeaseLost if the step has moved on.
        """
        if isinstance(outcome, NoOutcome):
            self._simulate_worker_loss(claimed_step)
        report = self._final_report(claimed_step)
        took_s = boottime_s() - claimed_step.began_at
        # The pending writes keep these functions. None of them may hold the claimed step, which holds the pending
        # writes: every run would be a reference cycle, and a worker some MiB larger until they are collected.
        step, lease = claimed_step.step, claimed_step.lease
        decide = _with_report(report, lease.step, self._decide_fn_of(step, lease, outcome, next_token))

        def decide_failure(error: NotStorable) -> DecideFn:
            # If the store refuses the content, trying again does not help: the step fails, and the content is left out.
            return self._decide_fn_of(step, lease, not_storable_error(step, error.message), None)

        fallback = decide_failure if isinstance(outcome, bytes | ProtectedOutput) else None
        return claimed_step.pending_writes.decide(decide, agent=step.agent, took_s=took_s, fallback=fallback)

    def _decide_fn_of(self, step: Step, lease: Lease, outcome: Outcome, next_token: str | None) -> DecideFn:
        now, timings = self._services.clock.now, self._services.timings
        at_least = timedelta(0)
        if isinstance(outcome, PostponedFailure):
            at_least, outcome = timedelta(seconds=outcome.wait_s), outcome.error
        if isinstance(outcome, RunError):
            error, jitter = outcome, random.random()  # noqa: S311  (drawn once: a decision may be made again)
            return lambda execution, _: fail(execution, lease, error, now(), jitter=jitter, at_least=at_least)
        if isinstance(outcome, WorkerDrains):
            return lambda execution, _: release(execution, lease, now(), timings, "its worker shuts down")
        if isinstance(outcome, KeyMissing):
            reason = outcome.reason
            return lambda execution, _: release_unknown_agent(execution, lease, now(), lacks_key=reason)
        if not isinstance(outcome, bytes | ProtectedOutput):
            return lambda execution, _: release_unknown_agent(execution, lease, now())

        output_json, marked = (outcome, None) if isinstance(outcome, bytes) else (outcome.json, outcome.marked)

        def decide_completion(execution: Execution, begun_step: str | None) -> Decision:
            # Checked before against the run as it was claimed; its other branches may have recorded outputs since.
            if size_error := check_total_size(execution, step, len(output_json)):
                return fail(execution, lease, size_error, now())
            is_external = execution.inline_bytes + len(output_json) > INLINE_OUTPUTS_MAX_BYTES
            output = StepOutput(lease.step, output_json, is_external=is_external, marked=marked)
            return complete(execution, lease, output, now(), timings, next_token=next_token, begun_step=begun_step)

        return decide_completion

    def _simulate_worker_loss(self, claimed_step: ClaimedStep) -> NoReturn:
        """Drop a step whose worker counts as lost, after all its reports are stored and published; raises LeaseLost.

        So a poll shows the same as for most lost workers: the step running, and its last progress.
        """
        pending_writes = claimed_step.pending_writes
        pending_writes.write()  # a report goes by the lease, which may not be stored yet
        report, as_of = claimed_step.reporter.take_report(), boottime_s()
        record = retry_until_reply(partial(self._services.store.report, claimed_step.lease, report), self._give_up)
        if record is not None:
            self._services.publisher.publish_view(record, as_of=as_of, published_seq=pending_writes.published_seq)
        raise LeaseLost(f"{claimed_step.step.id} plays a lost worker")

    def _final_report(self, claimed_step: ClaimedStep) -> ProgressReport:
        """Return what goes with the decision; if lines were dropped, they are written before it."""
        report = claimed_step.reporter.take_report()
        if not report.dropped:
            return report
        claimed_step.pending_writes.write()  # a report goes by the lease, which may not be stored yet
        with suppress(NotStorable):
            retry_until_reply(partial(self._services.store.report, claimed_step.lease, report), self._give_up)
        return ProgressReport()


def _with_report(report: ProgressReport, step_id: str, decide: DecideFn) -> DecideFn:
    """Return a decision function that puts the agent's last log lines and progress before the decision's own."""
    if report.is_empty:
        return decide
    log_lines, percent = tuple(report.events), report.percent

    def decide_with_report(execution: Execution, begun_step: str | None) -> Decision:
        step = execution.steps.get(step_id)
        if percent is not None and step is not None:
            execution = with_steps(execution, replace(step, percent=max(percent, step.percent or 0)))
        decision = decide(execution, begun_step)
        return replace(decision, events=(*log_lines, *decision.events))

    return decide_with_report
