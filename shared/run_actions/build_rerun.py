"""Builds the run that retries another one: opens what is sealed in the old one, and binds it to the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from shared.bootstrap import Services
from shared.domain.execution import Execution, ExecutionRecord
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, start_retry
from shared.domain.status import StepStatus
from shared.sealing import Sealer, input_place, key_id_of, marked_place


def reused_steps(original: Execution, start_from: RetryFrom) -> Sequence[str]:
    """Return the ids of the steps whose outputs a retry begins with."""
    if start_from is not RetryFrom.FAILED:
        return ()
    return [step.id for step in original.steps.values() if step.status is StepStatus.COMPLETED]


def build_rerun(
    services: Services, original: ExecutionRecord, request: RetryRequest, start_from: RetryFrom
) -> tuple[Decision, Mapping[str, bytes]]:
    """Return the decision that starts the retry of ``original``, and the outputs that it begins with.

    ``original`` has the outputs of the reused steps. Raises NotRetryable and EncryptionKeyMissing.
    """
    clear = _with_clear_input(services.sealer, original)
    reseal = partial(_reseal, services.sealer, original.execution)
    return start_retry(clear, request, start_from, services.timings, reseal)


def _with_clear_input(sealer: Sealer, original: ExecutionRecord) -> ExecutionRecord:
    """Return the run to retry with its input in clear; raises EncryptionKeyMissing."""
    run = original.execution
    return replace(original, execution=replace(run, input=sealer.open(run.input, input_place(run.id))))


def _reseal(sealer: Sealer, original: Execution, run: Execution) -> Execution:
    """Return the new run with all that is sealed in the old one bound to it; raises EncryptionKeyMissing."""
    if key_id_of(original.input) is not None or sealer.seals_payloads:
        run = replace(run, input=sealer.seal(run.input, input_place(run.id)))
    moved = {
        step.id: sealer.move(step.marked, marked_place(original.id, step.id), marked_place(run.id, step.id))
        for step in run.steps.values()
        if step.marked is not None
    }
    steps = {step.id: replace(step, marked=moved.get(step.id)) for step in run.steps.values()} if moved else run.steps
    return replace(run, steps=steps)
