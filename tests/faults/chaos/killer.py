"""Chaos faults: kills a random worker process every 2 s, flushes Redis twice and makes the primary step down twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from compose.embedded.managed_process import Child
from tests.faults.replica_set import ReplicaSet
from tests.stack import Stack
from tests.waiting import descendants

KILL_EVERY_S = 2.0


class Crew:
    """Several workers, and a small supervisor that restarts dead ones."""

    def __init__(self, stack: Stack, count: int) -> None:
        plan = stack.plan("worker")
        self._children = [Child(plan, stack.root / f"crew-{number}.log", stack.group_reaper) for number in range(count)]
        self.restarts = 0

    def start(self) -> None:
        """Start all."""
        for child in self._children:
            child.start()

    def check(self) -> None:
        """Restart workers that have died; must be called from the main thread."""
        for child in self._children:
            if not child.is_alive():
                child.start()
                self.restarts += 1

    def pids(self) -> list[int]:
        """Return the process ids of the running main processes."""
        return [child.pid for child in self._children if child.pid is not None]

    def close(self) -> None:
        """End all."""
        for child in self._children:
            child.kill()


class Killer:
    """Injects the faults of one seed; ``died`` maps each killed process id to its time by the wall clock."""

    def __init__(self, chance: random.Random, crew: Crew, stack: Stack, members: ReplicaSet, seconds: float) -> None:
        self._chance = chance
        self._crew = crew
        self._redis = stack.redis()
        self._members = members
        self._began = time.monotonic()
        self._kill_at = self._began + KILL_EVERY_S
        moments: Sequence[float] = (0.25, 0.65)
        self._flush_at = [self._began + seconds * part for part in moments]
        self._step_down_at = [self._began + seconds * (part + 0.15) for part in moments]
        self.died: dict[int, float] = {}
        self.strikes: list[tuple[float, str]] = []
        """Time (monotonic seconds) and kind of each fault: ``kill``, ``flush`` or ``step-down``."""

    def count(self, kind: str) -> int:
        """Return how many faults of ``kind`` were injected."""
        return sum(kind == struck for _, struck in self.strikes)

    def before(self, moment: float) -> str:
        """Return how long before ``moment`` the last fault of each kind was injected, as text."""
        last = {kind: at for at, kind in self.strikes if at <= moment}
        return ", ".join(f"{moment - at:.3f} s after a {kind}" for kind, at in last.items()) or "before all faults"

    def check(self) -> None:
        """Inject the next fault if it is time."""
        now = time.monotonic()
        if now >= self._kill_at:
            self._kill_at = now + KILL_EVERY_S
            self._kill()
        if self._flush_at and now >= self._flush_at[0]:
            self._flush_at.pop(0)
            self._redis.flushall()
            self.strikes.append((now, "flush"))
        if self._step_down_at and now >= self._step_down_at[0]:
            self._step_down_at.pop(0)
            self._members.step_down()
            self.strikes.append((now, "step-down"))

    def _kill(self) -> None:
        families = {main: descendants(main) for main in self._crew.pids()}
        every = sorted(pid for main, children in families.items() for pid in (main, *children))
        if not every:
            return
        victim = self._chance.choice(every)
        for pid in {victim, *families.get(victim, ())}:  # children end with their main process
            self.died[pid] = time.time()
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            self.strikes.append((time.monotonic(), "kill"))


def print_now(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
