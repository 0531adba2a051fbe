"""A store that fails as it is told to, before a write or after it: what a lost connection looks like from inside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from shared.domain.execution import Execution, ExecutionRecord, Lease
from shared.domain.lifecycle.decision import Decision
from shared.errors import OutcomeUnknown, StaleWrite, Unavailable
from shared.store.executions.port import BulkExecutionStore, ExecutionQueries, ExecutionStore

VERBS: Final = frozenset(
    {
        "create",
        "withdraw",
        "load",
        "save",
        "renew",
        "report",
        "read",
        "find_overdue",
        "acquire_leadership",
        "load_all",
        "save_all",
        "insert_all",
    }
)
WRITES: Final = frozenset({"withdraw", "renew", "acquire_leadership"})


class FaultyStore:
    """Passes each verb on to a real store, but for those that a test has laid a fault at.

    ``fail("save", before=2, after=1)``: the next two saves raise Unavailable and write nothing, the one after them
    writes and then raises OutcomeUnknown. ``asked`` counts the calls of each verb.
    """

    def __init__(self, store: ExecutionStore | BulkExecutionStore | ExecutionQueries) -> None:
        self._store = store
        self._faults: dict[str, list[Callable[[Callable[[], Any]], Any]]] = defaultdict(list)
        self.asked: dict[str, int] = defaultdict(int)

    def fail(self, verb: str, *, before: int = 0, after: int = 0) -> None:
        """Lay faults at the next calls of ``verb``."""
        self._faults[verb] += [_before] * before + [_after] * after

    def lay(self, verb: str, act: Callable[[Callable[[], Any]], Any]) -> None:
        """Have the next call of ``verb`` answer what ``act`` makes of it, who is given the call itself."""
        self._faults[verb].append(act)

    def __getattr__(self, verb: str) -> Any:
        if verb not in VERBS:
            return getattr(self._store, verb)

        def call(*args: Any, **options: Any) -> Any:
            self.asked[verb] += 1
            faults = self._faults[verb]
            act = faults.pop(0) if faults else _pass
            return act(lambda: getattr(self._store, verb)(*args, **options))

        return call


class Insistent:
    """A store of which each verb fails once, ``before`` its write or ``after`` it, and whose caller asks again.

    As the engine does: a verb whose repetition is harmless is repeated; a save that is stale the second time was
    written the first time where what it decided stands; an insert whose answer was lost is looked for. A report,
    whose lines are told twice where it is repeated, fails before its write only.
    """

    def __init__(self, store: ExecutionStore, fault: str) -> None:
        self._store = store
        self._fault = fault

    def __getattr__(self, verb: str) -> Any:
        real = getattr(self._store, verb)
        if verb not in WRITES:
            return real

        def call(*args: Any, **options: Any) -> Any:
            if self._fault == "after":
                real(*args, **options)  # and nobody hears of it
            return real(*args, **options)

        return call

    def create(self, accepted: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Create; where the answer was lost, look."""
        made = self._store.create(accepted, outputs)
        if self._fault == "before":
            return made
        run = accepted.execution
        found = self._store.load(run.integrator, run.id)
        return found or self._store.create(accepted, outputs)

    def save(self, before: Execution, advance: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Save; the second time it must be stale, and is looked for."""
        record = self._store.save(before, advance, lease=lease)
        if self._fault == "before":
            return record
        try:
            self._store.save(before, advance, lease=lease)
        except StaleWrite:
            found = self._store.load(before.integrator, before.id)
            if found is None or not _stands(before, advance.execution, found):
                raise
            return record
        raise AssertionError("one decision was written twice")


def _stands(before: Execution, decided: Execution, found: Execution) -> bool:
    """True where one of the steps that a decision changed is as it was decided."""
    changed = [step for step in decided.steps.values() if step != before.steps[step.id]]
    return any(found.steps[step.id] == step for step in changed)


def _pass(ask: Callable[[], Any]) -> Any:
    return ask()


def _before(ask: Callable[[], Any]) -> Any:
    raise Unavailable("a test has taken the store away")


def _after(ask: Callable[[], Any]) -> Any:
    ask()
    raise OutcomeUnknown
