"""Keeps the stages of a stack up: starts them in order, restarts what dies, stops them in reverse order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import RestartPolicy, Stage
from compose.errors import OperatorError

_LOG_BYTES_MAX: Final = 20 * 1024 * 1024


@dataclass(slots=True)
class _SupervisedChild:
    """A child, the moments of its late deaths, and when it is to be started again."""

    child: Child
    deaths: deque[float] = field(default_factory=deque)
    restart_at: float | None = None


class Supervisor:
    """Runs stages of children; ``warn`` is told in one sentence of each that died and what became of it."""

    def __init__(
        self, logs: Path, reaper: GroupReaper, warn: Callable[[str], None], restart_policy: RestartPolicy | None = None
    ) -> None:
        self._logs = logs
        self._reaper = reaper
        self._warn = warn
        self._restart_policy = restart_policy or RestartPolicy()
        self._stages: list[list[_SupervisedChild]] = []

    def start(self, stage: Stage) -> None:
        """Start a stage and wait until all of it is ready; raises Trouble where one is not.

        To be called from the main thread: see :mod:`compose.embedded.die_with_parent`.
        """
        kept = [_SupervisedChild(Child(plan, self._create_log(plan.name), self._reaper)) for plan in stage.children]
        self._stages.append(kept)
        for each in kept:
            each.child.start()
        for each in kept:
            each.child.wait_ready()

    def check_children(self) -> None:
        """Start again what has died since the last look; raises Trouble where one has used up its budget."""
        for each in self._children():
            if each.restart_at is None and not each.child.is_alive():
                self._record_death(each)
            if each.restart_at is not None and time.monotonic() >= each.restart_at:
                each.restart_at = None
                each.child.start()
            _rotate_log(each.child.log)

    def stop(self) -> None:
        """Stop the last stage first; each child has its own grace, and nothing of it is left afterwards."""
        while self._stages:
            stage = self._stages[-1]
            for each in reversed(stage):
                each.child.terminate()
            for each in reversed(stage):
                each.child.wait_stopped()
            self._stages.pop()

    def kill(self) -> None:
        """End everything at once; a signal handler may call it in the midst of :meth:`stop`, which does the rest."""
        for each in self._children():
            each.child.kill_group()

    def pids(self) -> Mapping[str, int | None]:
        """Answer the process id of each child by its name."""
        return {each.child.plan.name: each.child.pid for each in self._children()}

    def _children(self) -> list[_SupervisedChild]:
        return [each for stage in self._stages for each in stage]

    def _record_death(self, each: _SupervisedChild) -> None:
        now, plan, budget = time.monotonic(), each.child.plan, self._restart_policy
        each.deaths.append(now)
        while now - each.deaths[0] > budget.window_s:
            each.deaths.popleft()
        died = f"{plan.name} ended ({_exit_reason_of(each.child.exit_code)})"
        if len(each.deaths) > budget.restarts_max:
            raise OperatorError(
                f"{died}, {len(each.deaths)} times within {budget.window_s:g} s; it is not started again",
                fix=each.child.log_tail(),
            )
        each.restart_at = now + budget.backoff_s(len(each.deaths))
        self._warn(
            f"{died} and is started again, {len(each.deaths)} of {budget.restarts_max} times; see {each.child.log}"
        )

    def _create_log(self, name: str) -> Path:
        log = self._logs / f"{name}.log"
        log.write_bytes(b"")
        return log


def _exit_reason_of(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"killed by signal {-exit_code}"
    return f"exit code {exit_code}"


def _rotate_log(log: Path) -> None:
    # The children append, so their log can be cut under their hands; the part before stays beside it.
    if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
        log.with_suffix(".log.1").write_bytes(log.read_bytes())
        with log.open("r+b") as file:
            file.truncate(0)
