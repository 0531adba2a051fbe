"""Fault injection for stores: a store that fails before a write or after it, as a lost connection looks from inside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from shared.domain.execution import Execution, ExecutionRecord, Lease
from shared.domain.lifecycle.decision import Decision
from shared.errors import OutcomeUnknown, StaleWrite, Unavailable
from shared.store.executions.store import MongoExecutionStore

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
    """Proxy of a real store that passes each verb on, except the calls for which a test has injected a fault.

    ``fail("save", before=2, after=1)``: the next two saves raise Unavailable and write nothing, the one after them
    writes and then raises OutcomeUnknown. ``asked`` counts the calls of each verb.
    """

    def __init__(self, store: Any, verbs: Collection[str] = VERBS) -> None:
        self._store = store
        self._verbs = verbs
        self._faults: dict[str, list[Callable[[Callable[[], Any]], Any]]] = defaultdict(list)
        self.calls: dict[str, int] = defaultdict(int)

    def fail(self, verb: str, *, before: int = 0, after: int = 0) -> None:
        """Inject faults into the next calls of ``verb``."""
        self._faults[verb] += [_before] * before + [_after] * after

    def intercept_next(self, verb: str, act: Callable[[Callable[[], Any]], Any]) -> None:
        """Let ``act`` handle the next call of ``verb``: it gets the call as a function, and its result is returned."""
        self._faults[verb].append(act)

    def __getattr__(self, verb: str) -> Any:
        if verb not in self._verbs:
            return getattr(self._store, verb)

        def call(*args: Any, **options: Any) -> Any:
            self.calls[verb] += 1
            faults = self._faults[verb]
            act = faults.pop(0) if faults else _pass
            return act(lambda: getattr(self._store, verb)(*args, **options))

        return call


class RetryingFaultyStore:
    """A store whose every verb fails once, ``before`` its write or ``after`` it, and whose caller tries again.

    It retries as the engine does. A verb whose repetition is harmless is repeated. A save that is stale the second time
    was written the first time if its decision is stored. An insert whose reply was lost is searched for. A report fails
    before its write only, because its lines would be stored twice if it were repeated.
    """

    def __init__(self, store: MongoExecutionStore, fault: str) -> None:
        self._store = store
        self._fault = fault

    def __getattr__(self, verb: str) -> Any:
        real = getattr(self._store, verb)
        if verb not in WRITES:
            return real

        def call(*args: Any, **options: Any) -> Any:
            if self._fault == "after":
                real(*args, **options)  # its reply is lost
            return real(*args, **options)

        return call

    def create(self, decision: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Create a run; if the reply was lost, search for it."""
        created = self._store.create(decision, outputs)
        if self._fault == "before":
            return created
        run = decision.execution
        stored = self._store.load(run.integrator, run.id)
        return stored or self._store.create(decision, outputs)

    def save(self, before: Execution, decision: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Save a decision; the second save must be stale, and then the decision must be stored."""
        record = self._store.save(before, decision, lease=lease)
        if self._fault == "before":
            return record
        try:
            self._store.save(before, decision, lease=lease)
        except StaleWrite:
            stored = self._store.load(before.integrator, before.id)
            if stored is None or not _is_stored(before, decision.execution, stored):
                raise
            return record
        raise AssertionError("one decision was written twice")


def _is_stored(before: Execution, decided: Execution, stored: Execution) -> bool:
    """Return whether one of the steps that a decision changed is stored as it was decided."""
    changed = [step for step in decided.steps.values() if step != before.steps[step.id]]
    return any(stored.steps[step.id] == step for step in changed)


def _pass(call: Callable[[], Any]) -> Any:
    return call()


def _before(call: Callable[[], Any]) -> Any:
    raise Unavailable("a test has taken the store away")


def _after(call: Callable[[], Any]) -> Any:
    call()
    raise OutcomeUnknown
