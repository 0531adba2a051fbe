"""Times the store's verbs where few and where many executions are stored, by turns, and asks mongod for their plans.

Wall time, most of which is the journal's; that the cost does not grow with the store is shown by the keys and documents
that mongod looked at, and by the two columns of times staying alike.
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
class VerbLatency:
    """One verb in one place: µs in the middle and for all but one of a hundred."""

    p50_us: float
    p99_us: float


class BenchmarkDatabase:
    """One database with its executions; ``times`` holds seconds by verb."""

    def __init__(self, redis_url: str, mongodb_url: str, documents: int) -> None:
        """Fill the database, with the indexes that Bucket makes."""
        self.services: Services = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "worker")
        self.services.prepare()
        self.times: dict[str, list[float]] = {}
        self._plans: dict[str, Plans] | None = None
        insert_finished(self._executions, documents, self._now(), self.services.timings)

    @property
    def _executions(self) -> Any:
        return self.services.database.collection("executions")

    def run_lifecycle(self) -> None:
        """Take one run from its acceptance to its end, by way of a rescue, timing each verb on it."""
        store, terms = self.services.store, self.services.timings
        now, key = self._now(), new_token()
        late = accept_run(now - _OVERDUE, terms, _STEP, key=key)
        run = self._time_verb("accept", lambda: store.create(late))
        again = accept_run(now, terms, _STEP, key=key)
        self._expect(
            self._time_verb("the same key again", lambda: store.create(again)).id == run.id, "a key was taken twice"
        )
        far = now + 2 * terms.due_ahead_max
        due = self._time_verb("search for overdue", lambda: store.find_overdue(now, far, _OVERDUE_BATCH_MAX))
        self._expect(
            [execution.id for execution, _ in due] == [run.id], f"overdue were {len(due)} runs and not the one"
        )
        run = self._save("rescue", run, rescue(run, _STEP, now, terms))
        run = self._time_verb("load for a claim", lambda: self._load(run))
        run = self._save("claim", run, claim(run, _STEP, new_token(), self._now(), terms))
        lease = run.lease_of(_STEP)
        beat = self._time_verb("heartbeat", lambda: store.renew(lease, self._now() + terms.lease))
        self._expect(beat is not None, "a lease was lost")
        ended = complete(run, lease, StepOutput(_STEP, b'{"analysis":{"total":700}}'), self._now(), terms)
        run = self._time_verb("complete", lambda: store.save(run, ended, lease=lease).execution)
        record = self._time_verb("poll from MongoDB", lambda: store.read(PUBLIC_INTEGRATOR, run.id))
        self._expect(record is not None and record.execution.is_done, "a run has not ended")

    def plans(self) -> Mapping[str, Plans]:
        """Take one more run through its life, untimed; answer how mongod found what each verb asked for."""
        self._plans = {}
        self.run_lifecycle()
        plans, self._plans = self._plans, None
        return plans

    def latencies(self) -> Mapping[str, VerbLatency]:
        """Answer what each verb took."""
        summaries = {}
        for verb, times in self.times.items():
            cuts = statistics.quantiles(times, n=100)
            summaries[verb] = VerbLatency(cuts[49] * _US, cuts[98] * _US)
        return summaries

    def close(self) -> None:
        """Close the connections."""
        self.services.database.close()
        self.services.redis.close()

    def _save(self, verb: str, run: Execution, advance: Decision | None) -> Execution:
        if advance is None:
            raise BenchmarkError(f"{verb} decided nothing")
        return self._time_verb(verb, lambda: self.services.store.save(run, advance).execution)

    def _load(self, run: Execution) -> Execution:
        found = self.services.store.load(PUBLIC_INTEGRATOR, run.id)
        self._expect(found is not None, "a run is gone")
        return found or run

    def _time_verb(self, verb: str, do: Callable[[], T]) -> T:
        if self._plans is not None:
            with recording(self._executions.database) as entries:
                answer = do()
            own = [entry for entry in entries if entry["ns"].endswith(".executions")]
            self._plans[verb] = [plan_of(self._executions.database, entry) for entry in own]
            return answer
        began = time.perf_counter()
        answer = do()
        self.times.setdefault(verb, []).append(time.perf_counter() - began)
        return answer

    def _now(self) -> datetime:
        return self.services.clock.now()

    @staticmethod
    def _expect(holds: bool, otherwise: str) -> None:
        if not holds:
            raise BenchmarkError(otherwise)


def run_alternately(few: BenchmarkDatabase, many: BenchmarkDatabase, rounds: int) -> None:
    """Take runs through their lives in both places by turns."""
    for _ in range(_WARM_ROUNDS):
        few.run_lifecycle()
        many.run_lifecycle()
    few.times, many.times = {}, {}
    for number in range(rounds):
        for place in (few, many) if number % 2 == 0 else (many, few):
            place.run_lifecycle()
