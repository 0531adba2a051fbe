"""The processes of an embedded stack as data: the command of each, its readiness check, and its timeouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process; ``ready`` returns whether it serves, and an exception from it counts as not ready yet."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool] = lambda: True
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 30.0
    stop_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Processes that start together when the previous stage is ready, and stop together before the previous stage."""

    title: str
    children: tuple[ChildPlan, ...]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Restart limit of one child, with back-off: at most ``restarts_max`` within ``window_s``, each delay longer."""

    restarts_max: int = 5
    window_s: float = 60.0
    backoff_base_s: float = 0.25

    def backoff_s(self, deaths: int) -> float:
        """Return the delay before the restart that follows the ``deaths``-th death; the first restart is at once."""
        return 0.0 if deaths <= 1 else self.backoff_base_s * 2 ** (deaths - 2)
