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

from benchmarks.harness.load_generator import Broken
from benchmarks.harness.mongod_profiler import Plan, plan_of, recorded
from benchmarks.harness.sample_executions import accepted, fill
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import PUBLIC, Execution
from shared.domain.lifecycle.transitions import Advance, Output, claim, complete, rescue
from shared.ids import new_token
from shared.settings import Settings

T = TypeVar("T")
Plans = Sequence[Plan]
_STEP: Final = "cashflow_analyzer"
_OVERDUE: Final = timedelta(seconds=60)
_TAKEN_AT_ONCE: Final = 500
_WARM_ROUNDS: Final = 5
_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Timed:
    """One verb in one place: µs in the middle and for all but one of a hundred."""

    p50_us: float
    p99_us: float


class Place:
    """One database with its executions; ``times`` holds seconds by verb."""

    def __init__(self, redis_url: str, mongodb_url: str, documents: int) -> None:
        """Fill the database, with the indexes that Bucket makes."""
        self.services: Services = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "worker")
        self.services.prepare()
        self.times: dict[str, list[float]] = {}
        self._plans: dict[str, Plans] | None = None
        fill(self._executions, documents, self._now(), self.services.terms)

    @property
    def _executions(self) -> Any:
        return self.services.database.collection("executions")

    def life(self) -> None:
        """Take one run from its acceptance to its end, by way of a rescue, timing each verb on it."""
        store, terms = self.services.store, self.services.terms
        now, key = self._now(), new_token()
        late = accepted(now - _OVERDUE, terms, _STEP, key=key)
        run = self._timed("accept", lambda: store.create(late))
        again = accepted(now, terms, _STEP, key=key)
        self._expect(
            self._timed("the same key again", lambda: store.create(again)).id == run.id, "a key was taken twice"
        )
        far = now + 2 * terms.ahead_max
        due = self._timed("search for overdue", lambda: store.overdue(now, far, _TAKEN_AT_ONCE))
        self._expect(
            [execution.id for execution, _ in due] == [run.id], f"overdue were {len(due)} runs and not the one"
        )
        run = self._saved("rescue", run, rescue(run, _STEP, now, terms))
        run = self._timed("load for a claim", lambda: self._loaded(run))
        run = self._saved("claim", run, claim(run, _STEP, new_token(), self._now(), terms))
        lease = run.lease_of(_STEP)
        beat = self._timed("heartbeat", lambda: store.renew(lease, self._now() + terms.lease))
        self._expect(beat is not None, "a lease was lost")
        ended = complete(run, lease, Output(_STEP, b'{"analysis":{"total":700}}'), self._now(), terms)
        run = self._timed("complete", lambda: store.save(run, ended, lease=lease).execution)
        record = self._timed("poll from MongoDB", lambda: store.read(PUBLIC, run.id))
        self._expect(record is not None and record.execution.done, "a run has not ended")

    def plans(self) -> Mapping[str, Plans]:
        """Take one more run through its life, untimed; answer how mongod found what each verb asked for."""
        self._plans = {}
        self.life()
        plans, self._plans = self._plans, None
        return plans

    def timed(self) -> Mapping[str, Timed]:
        """Answer what each verb took."""
        summaries = {}
        for verb, times in self.times.items():
            cuts = statistics.quantiles(times, n=100)
            summaries[verb] = Timed(cuts[49] * _US, cuts[98] * _US)
        return summaries

    def close(self) -> None:
        """Close the connections."""
        self.services.database.close()
        self.services.redis.close()

    def _saved(self, verb: str, run: Execution, advance: Advance | None) -> Execution:
        if advance is None:
            raise Broken(f"{verb} decided nothing")
        return self._timed(verb, lambda: self.services.store.save(run, advance).execution)

    def _loaded(self, run: Execution) -> Execution:
        found = self.services.store.load(PUBLIC, run.id)
        self._expect(found is not None, "a run is gone")
        return found or run

    def _timed(self, verb: str, do: Callable[[], T]) -> T:
        if self._plans is not None:
            with recorded(self._executions.database) as entries:
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
            raise Broken(otherwise)


def compare(few: Place, many: Place, rounds: int) -> None:
    """Take runs through their lives in both places by turns."""
    for _ in range(_WARM_ROUNDS):
        few.life()
        many.life()
    few.times, many.times = {}, {}
    for number in range(rounds):
        for place in (few, many) if number % 2 == 0 else (many, few):
            place.life()
