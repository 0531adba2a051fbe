"""Keeps the stages of a stack up: starts them in order, restarts what dies, stops them in reverse order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from compose.embedded.group_reaper import Guard
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import Budget, Stage
from compose.errors import Trouble

_LOG_BYTES_MAX: Final = 20 * 1024 * 1024


@dataclass(slots=True)
class _Kept:
    """A child, the moments of its late deaths, and when it is to be started again."""

    child: Child
    deaths: deque[float] = field(default_factory=deque)
    start_at: float | None = None


class Supervisor:
    """Runs stages of children; ``warn`` is told in one sentence of each that died and what became of it."""

    def __init__(self, logs: Path, guard: Guard, warn: Callable[[str], None], budget: Budget | None = None) -> None:
        self._logs = logs
        self._guard = guard
        self._warn = warn
        self._budget = budget or Budget()
        self._stages: list[list[_Kept]] = []

    def start(self, stage: Stage) -> None:
        """Start a stage and wait until all of it is ready; raises Trouble where one is not.

        To be called from the main thread: see :mod:`compose.embedded.die_with_parent`.
        """
        kept = [_Kept(Child(plan, self._fresh_log(plan.name), self._guard)) for plan in stage.children]
        self._stages.append(kept)
        for each in kept:
            each.child.start()
        for each in kept:
            each.child.wait_ready()

    def look(self) -> None:
        """Start again what has died since the last look; raises Trouble where one has used up its budget."""
        for each in self._kept():
            if each.start_at is None and not each.child.is_alive():
                self._note_death(each)
            if each.start_at is not None and time.monotonic() >= each.start_at:
                each.start_at = None
                each.child.start()
            _keep_short(each.child.log)

    def stop(self) -> None:
        """Stop the last stage first; each child has its own grace, and nothing of it is left afterwards."""
        while self._stages:
            stage = self._stages[-1]
            for each in reversed(stage):
                each.child.ask_to_stop()
            for each in reversed(stage):
                each.child.wait_stopped()
            self._stages.pop()

    def kill(self) -> None:
        """End everything at once; a signal handler may call it in the midst of :meth:`stop`, which does the rest."""
        for each in self._kept():
            each.child.end_group()

    def pids(self) -> Mapping[str, int | None]:
        """Answer the process id of each child by its name."""
        return {each.child.plan.name: each.child.pid for each in self._kept()}

    def _kept(self) -> list[_Kept]:
        return [each for stage in self._stages for each in stage]

    def _note_death(self, each: _Kept) -> None:
        now, plan, budget = time.monotonic(), each.child.plan, self._budget
        each.deaths.append(now)
        while now - each.deaths[0] > budget.within_s:
            each.deaths.popleft()
        died = f"{plan.name} ended ({_told(each.child.exit_code)})"
        if len(each.deaths) > budget.restarts:
            raise Trouble(
                f"{died}, {len(each.deaths)} times within {budget.within_s:g} s; it is not started again",
                fix=each.child.last_words(),
            )
        each.start_at = now + budget.delay_s(len(each.deaths))
        self._warn(f"{died} and is started again, {len(each.deaths)} of {budget.restarts} times; see {each.child.log}")

    def _fresh_log(self, name: str) -> Path:
        log = self._logs / f"{name}.log"
        log.write_bytes(b"")
        return log


def _told(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"killed by signal {-exit_code}"
    return f"exit code {exit_code}"


def _keep_short(log: Path) -> None:
    # The children append, so their log can be cut under their hands; the part before stays beside it.
    if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
        log.with_suffix(".log.1").write_bytes(log.read_bytes())
        with log.open("r+b") as file:
            file.truncate(0)
