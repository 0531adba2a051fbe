"""Says as data what runs in an embedded stack: how each process is started, when it is ready, how long it may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process: ``ready`` answers whether it serves, and what it raises counts as not yet."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    start_within_s: float = 30.0
    stop_within_s: float = 10.0
