"""Scaling of the store: times its operations with few and many stored executions, alternately, and reads the plans.

It measures wall time, most of which is the journal's. Two things show that the cost does not grow with the store: the
keys and documents that mongod examined, and two columns of times that stay alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.mongod_profiler import QueryPlan, plan_of, recording
from benchmarks.harness.sample_executions import accept_run, insert_finished
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.transitions import Decision, StepOutput, claim, complete, rescue
from shared.ids import new_token
from shared.settings import Settings

T = TypeVar("T")
Plans = Sequence[QueryPlan]
_STEP: Final = "cashflow_analyzer"
_OVERDUE: Final = timedelta(seconds=60)
_OVERDUE_BATCH_MAX: Final = 500
_WARM_ROUNDS: Final = 5
_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class OperationLatency:
    """The latency of one operation in one database: median and 99th percentile, in µs."""

    p50_us: float
    p99_us: float


class BenchmarkDatabase:
    """One database with its executions; ``times`` holds seconds by operation."""

    def __init__(self, redis_url: str, mongodb_url: str, documents: int) -> None:
        """Fill the database with ``documents`` finished runs, with the indexes that Bucket creates."""
        self.services: Services = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "worker")
        self.services.prepare()
        self.times: dict[str, list[float]] = {}
        self._plans: dict[str, Plans] | None = None
        insert_finished(self._executions, documents, self._now(), self.services.timings)

    @property
    def _executions(self) -> Any:
        return self.services.database.collection("executions")

    def run_lifecycle(self) -> None:
        """Take one run from its acceptance, through a rescue, to its end, and time each operation."""
        store, terms = self.services.store, self.services.timings
        now, key = self._now(), new_token()
        late = accept_run(now - _OVERDUE, terms, _STEP, key=key)
        run = self._time_operation("accept", lambda: store.create(late))
        again = accept_run(now, terms, _STEP, key=key)
        self._expect(
            self._time_operation("the same key again", lambda: store.create(again)).id == run.id,
            "a key was taken twice",
        )
        implausible_after = now + 2 * terms.due_ahead_max
        due = self._time_operation(
            "search for overdue", lambda: store.find_overdue(now, implausible_after, _OVERDUE_BATCH_MAX)
        )
        self._expect(
            [execution.id for execution, _ in due] == [run.id], f"overdue were {len(due)} runs and not the one"
        )
        run = self._save("rescue", run, rescue(run, _STEP, now, terms))
        run = self._time_operation("load for a claim", lambda: self._load(run))
        run = self._save("claim", run, claim(run, _STEP, new_token(), self._now(), terms))
        lease = run.lease_of(_STEP)
        renewal = self._time_operation("heartbeat", lambda: store.renew(lease, self._now() + terms.lease))
        self._expect(renewal is not None, "a lease was lost")
        ended = complete(run, lease, StepOutput(_STEP, b'{"analysis":{"total":700}}'), self._now(), terms)
        run = self._time_operation("complete", lambda: store.save(run, ended, lease=lease).execution)
        record = self._time_operation("poll from MongoDB", lambda: store.read(PUBLIC_INTEGRATOR, run.id))
        self._expect(record is not None and record.execution.is_done, "a run has not ended")

    def plans(self) -> Mapping[str, Plans]:
        """Run one more lifecycle, untimed; return mongod's query plans by operation."""
        self._plans = {}
        self.run_lifecycle()
        plans, self._plans = self._plans, None
        return plans

    def latencies(self) -> Mapping[str, OperationLatency]:
        """Return the latency of each operation."""
        summaries = {}
        for operation_name, times in self.times.items():
            cuts = statistics.quantiles(times, n=100)
            summaries[operation_name] = OperationLatency(cuts[49] * _US, cuts[98] * _US)
        return summaries

    def close(self) -> None:
        """Close the connections."""
        self.services.database.close()
        self.services.redis.close()

    def _save(self, operation_name: str, run: Execution, decision: Decision | None) -> Execution:
        if decision is None:
            raise BenchmarkError(f"{operation_name} decided nothing")
        return self._time_operation(operation_name, lambda: self.services.store.save(run, decision).execution)

    def _load(self, run: Execution) -> Execution:
        execution = self.services.store.load(PUBLIC_INTEGRATOR, run.id)
        self._expect(execution is not None, "a run is gone")
        return execution or run

    def _time_operation(self, operation_name: str, operation: Callable[[], T]) -> T:
        if self._plans is not None:
            with recording(self._executions.database) as entries:
                result = operation()
            entries_of_executions = [entry for entry in entries if entry["ns"].endswith(".executions")]
            self._plans[operation_name] = [plan_of(self._executions.database, entry) for entry in entries_of_executions]
            return result
        started_at = time.perf_counter()
        result = operation()
        self.times.setdefault(operation_name, []).append(time.perf_counter() - started_at)
        return result

    def _now(self) -> datetime:
        return self.services.clock.now()

    @staticmethod
    def _expect(holds: bool, otherwise: str) -> None:
        if not holds:
            raise BenchmarkError(otherwise)


def run_alternately(few: BenchmarkDatabase, many: BenchmarkDatabase, rounds: int) -> None:
    """Run ``rounds`` lifecycles in both databases, alternately, after a warm-up that is not timed."""
    for _ in range(_WARM_ROUNDS):
        few.run_lifecycle()
        many.run_lifecycle()
    few.times, many.times = {}, {}
    for number in range(rounds):
        for database in (few, many) if number % 2 == 0 else (many, few):
            database.run_lifecycle()
