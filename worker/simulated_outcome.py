"""What only the reserved agent ``simulate`` may raise: a worker that is lost, and a failure of any code.

From any other agent they are exceptions like all others: the codes of runs are a closed list.
"""

from __future__ import annotations

from shared.domain.execution import ErrorKind, RunError, Step
from shared.domain.lifecycle.simulation import ERROR_KIND_BY_CODE, SIMULATE_AGENT_NAME


class SimulatedWorkerLoss(Exception):
    """The worker counts as lost from here on: nothing more is said of this attempt, and its lease runs out."""


class NoOutcome:
    """What came of a step whose worker counts as lost: no outcome, and no word beyond what it has told so far."""


class ScriptedFailure(Exception):
    """The step fails with the code that its script names."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the script says {code}")
        self.code = code


def simulated_outcome_of(step: Step, raised: BaseException) -> RunError | NoOutcome | None:
    """Answer what ``simulate`` was told to play; None for what is played by nobody.

    Where a worker is to be lost, the runner lets go of the step without an outcome, as it does of one that has moved
    on, and whoever looks for overdue steps finds it. No process ends, for others share it.
    """
    if step.agent != SIMULATE_AGENT_NAME:
        return None
    if isinstance(raised, SimulatedWorkerLoss):
        return NoOutcome()
    if not isinstance(raised, ScriptedFailure):
        return None
    kind = ERROR_KIND_BY_CODE.get(raised.code, ErrorKind.PERMANENT)
    return RunError(
        raised.code,
        f"simulated: {raised}",
        kind,
        agent=step.agent,
        step=step.id,
        attempt=step.claims,
        retryable=kind is ErrorKind.LOST,
    )
