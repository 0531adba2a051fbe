"""Fault injection: the outcomes that only the reserved agent ``simulate`` can cause, a lost worker or any error code.

If another agent raises these exceptions, they count like all others: the error codes of runs are a closed list.
"""

from __future__ import annotations

from shared.domain.execution import ErrorKind, RunError, Step
from shared.domain.lifecycle.simulator_script import ERROR_KIND_BY_CODE, SIMULATE_AGENT_NAME


class SimulatedWorkerLoss(Exception):
    """The worker counts as lost: nothing more is recorded of this attempt, and its lease runs out."""


class NoOutcome:
    """Outcome of a step whose worker counts as lost: nothing is recorded beyond what it has reported so far."""


class ScriptedFailure(Exception):
    """The step fails with the code that its script names."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the script says {code}")
        self.code = code


def simulated_outcome_of(step: Step, raised: BaseException) -> RunError | NoOutcome | None:
    """Return the outcome that the script of ``simulate`` asks for; None if this exception is not part of a script.

    For a lost worker, the runner drops the step without an outcome, as it does if a step has moved on, and the
    reconciler rescues it. No process ends, because other runs share it.
    """
    if step.agent != SIMULATE_AGENT_NAME:
        return None
    if isinstance(raised, SimulatedWorkerLoss):
        return NoOutcome()
    if not isinstance(raised, ScriptedFailure):
        return None
    kind = ERROR_KIND_BY_CODE.get(raised.code, ErrorKind.PERMANENT)
    retryable = kind is ErrorKind.LOST
    return RunError(raised.code, f"simulated: {raised}", kind, step.agent, step.id, step.claims, retryable)
