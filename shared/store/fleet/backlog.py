"""The backlog in MongoDB: how many runs and steps are not done, by status, basket and agent.

It reads the runs that have a due time, which are those that are not done, by the index of due times: the cost grows
with them, and not with the runs that are stored. What workers have received and not begun still waits here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.domain.status import StepStatus
from shared.store.database import Database, db_call

_TIMEOUT_S: Final = 2.5
_DUE: Final = {"due_by": {"$exists": True}}
_STEP: Final = "$steps.v"


@dataclass(frozen=True, slots=True)
class RunCount:
    """The number of runs of one integrator's basket in one status."""

    integrator: str
    basket: str
    status: str
    runs: int


@dataclass(frozen=True, slots=True)
class StepCount:
    """The number of steps of an agent that run, or that are offered and wait; then with the oldest offer."""

    integrator: str
    agent: str
    is_running: bool
    steps: int
    oldest_offer_at: datetime | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """All that is not done; a step that waits for a time, or for other steps, is not counted."""

    runs: Sequence[RunCount] = ()
    steps: Sequence[StepCount] = ()


class MongoBacklog:
    """Counts what is not done; raises Unavailable if MongoDB does not reply."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> Backlog:
        """Return the counts of all integrators."""
        with db_call(self._database, writes=False, timeout_s=_TIMEOUT_S):
            executions = self._database.collection("executions")
            [found] = executions.aggregate(_PIPELINE, hint="due_by")
        return Backlog(
            tuple(RunCount(**row["_id"], runs=row["runs"]) for row in found["runs"]),
            tuple(StepCount(**row["_id"], steps=row["steps"], oldest_offer_at=row["oldest"]) for row in found["steps"]),
        )


_PIPELINE: Final[list[dict[str, Any]]] = [
    {"$match": _DUE},
    {"$project": {"integrator": 1, "status": 1, "basket": "$basket_name", "steps": {"$objectToArray": "$steps"}}},
    {
        "$facet": {
            "runs": [
                {
                    "$group": {
                        "_id": {"integrator": "$integrator", "basket": "$basket", "status": "$status"},
                        "runs": {"$sum": 1},
                    }
                }
            ],
            "steps": [
                {"$unwind": "$steps"},
                {
                    "$match": {
                        "$or": [
                            {"steps.v.status": StepStatus.RUNNING.value},
                            {"steps.v.status": StepStatus.READY.value, "steps.v.offered_at": {"$exists": True}},
                        ]
                    }
                },
                {
                    "$group": {
                        "_id": {
                            "integrator": "$integrator",
                            "agent": f"{_STEP}.agent",
                            "is_running": {"$eq": [f"{_STEP}.status", StepStatus.RUNNING.value]},
                        },
                        "steps": {"$sum": 1},
                        "oldest": {"$min": f"{_STEP}.offered_at"},
                    }
                },
            ],
        }
    },
]
