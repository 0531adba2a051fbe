"""What an integrator has in MongoDB, for its quotas: live runs, runs accepted since a moment, and their bytes.

The counts of runs read an index alone, and no more of it than the quota is large or the last minutes have runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from shared.domain.status import ExecutionStatus
from shared.store.database import Database, db_call

SAMPLED_RUNS_MAX: Final = 2_000
_ESTIMATE_TIMEOUT_S: Final = 20.0
_STORED_SIZE: Final[dict[str, Any]] = {"$project": {"bytes": {"$bsonSize": "$$ROOT"}}}
_OUTPUTS: Final[dict[str, Any]] = {
    "$lookup": {
        "from": "outputs",
        "localField": "_id",
        "foreignField": "execution_id",
        "pipeline": [_STORED_SIZE],
        "as": "outputs",
    }
}


class MongoUsage:
    """Counts and sizes by integrator; raises Unavailable if MongoDB does not reply."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_by_status(self, integrator: str, statuses: Sequence[ExecutionStatus], limit: int) -> Mapping[str, int]:
        """Return the number of runs in each of the statuses, of ``limit`` runs at most."""
        pipeline: list[dict[str, Any]] = [
            {"$match": {"integrator": str(integrator), "status": {"$in": [str(status) for status in statuses]}}},
            {"$limit": max(limit, 1)},
            {"$group": {"_id": "$status", "runs": {"$sum": 1}}},
        ]
        with db_call(self._database, writes=False):
            return {row["_id"]: row["runs"] for row in self._database.collection("executions").aggregate(pipeline)}

    def count_created(self, integrator: str, since: datetime, before: datetime | None = None) -> int:
        """Return the number of runs that were created at ``since`` or later, and ``before`` a time if one is given."""
        created = {"$gte": since} if before is None else {"$gte": since, "$lt": before}
        with db_call(self._database, writes=False):
            query = {"integrator": str(integrator), "created_at": created}
            return self._database.collection("executions").count_documents(query)

    def integrators(self) -> Sequence[str]:
        """Return the integrators that have runs; it reads one entry of an index for each of them."""
        with db_call(self._database, writes=False):
            return [name for name in self._database.collection("executions").distinct("integrator") if name]

    def estimate_bytes(self, integrator: str) -> int:
        """Return about how many bytes an integrator's runs and their large outputs take, before compression.

        It is their sum for up to :data:`SAMPLED_RUNS_MAX` runs; for more, the mean of the newest times their number.
        """
        executions = self._database.collection("executions")
        matching = {"integrator": str(integrator)}
        pipeline: list[dict[str, Any]] = [
            {"$match": matching},
            {"$sort": {"created_at": -1, "_id": -1}},
            {"$limit": SAMPLED_RUNS_MAX},
            _STORED_SIZE,
            _OUTPUTS,
            {
                "$group": {
                    "_id": None,
                    "runs": {"$sum": 1},
                    "bytes": {"$sum": {"$add": ["$bytes", {"$sum": "$outputs.bytes"}]}},
                }
            },
        ]
        with db_call(self._database, writes=False, timeout_s=_ESTIMATE_TIMEOUT_S):
            sampled = next(iter(executions.aggregate(pipeline)), None)
            if sampled is None:
                return 0
            runs, size = int(sampled["runs"]), int(sampled["bytes"])
            total = executions.count_documents(matching) if runs == SAMPLED_RUNS_MAX else runs
        return size * total // runs
