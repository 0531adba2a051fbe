"""A store that fails as it is told to, before a write or after it: what a lost connection looks like from inside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from shared.errors import OutcomeUnknown, Unavailable
from shared.store.port import ExecutionStore

VERBS: Final = frozenset({"create", "withdraw", "load", "save", "renew", "report", "read", "overdue", "lead"})


class FaultyStore:
    """Passes each verb on to a real store, but for those that a test has laid a fault at.

    ``fail("save", before=2, after=1)``: the next two saves raise Unavailable and write nothing, the one after them
    writes and then raises OutcomeUnknown. ``asked`` counts the calls of each verb.
    """

    def __init__(self, store: ExecutionStore) -> None:
        self._store = store
        self._faults: dict[str, list[Callable[[Callable[[], Any]], Any]]] = defaultdict(list)
        self.asked: dict[str, int] = defaultdict(int)

    def fail(self, verb: str, *, before: int = 0, after: int = 0) -> None:
        """Lay faults at the next calls of ``verb``."""
        self._faults[verb] += [_before] * before + [_after] * after

    def __getattr__(self, verb: str) -> Any:
        if verb not in VERBS:
            return getattr(self._store, verb)

        def call(*args: Any, **options: Any) -> Any:
            self.asked[verb] += 1
            faults = self._faults[verb]
            act = faults.pop(0) if faults else _pass
            return act(lambda: getattr(self._store, verb)(*args, **options))

        return call


def _pass(ask: Callable[[], Any]) -> Any:
    return ask()


def _before(ask: Callable[[], Any]) -> Any:
    raise Unavailable("a test has taken the store away")


def _after(ask: Callable[[], Any]) -> Any:
    ask()
    raise OutcomeUnknown
