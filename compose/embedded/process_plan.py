"""Says as data what runs in an embedded stack: how each process is started, when it is ready, how long it may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process: ``ready`` answers whether it serves, and what it raises counts as not yet."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool] = lambda: True
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 30.0
    stop_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Processes that start together, once all of the stage before are ready, and stop together, before those."""

    title: str
    children: tuple[ChildPlan, ...]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often one child may be started again: ``restarts`` within ``within_s``, each a little later than the last."""

    restarts_max: int = 5
    window_s: float = 60.0
    backoff_base_s: float = 0.25

    def backoff_s(self, deaths: int) -> float:
        """Answer how long to wait before the start that follows the ``deaths``-th death; the first one is at once."""
        return 0.0 if deaths <= 1 else self.backoff_base_s * 2 ** (deaths - 2)
