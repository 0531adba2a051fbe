"""Supervisor of a stack: starts its stages in order, restarts children that die, stops the stages in reverse order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import RestartPolicy, Stage
from compose.operator_error import OperatorError

_LOG_BYTES_MAX: Final = 20 * 1024 * 1024


@dataclass(slots=True)
class _SupervisedChild:
    """A child, the times of its recent deaths, and when to start it again."""

    child: Child
    deaths: deque[float] = field(default_factory=deque)
    restart_at: float | None = None


class Supervisor:
    """Runs stages of children; ``warn`` gets one sentence for each child that died and is restarted."""

    def __init__(
        self, logs: Path, reaper: GroupReaper, warn: Callable[[str], None], restart_policy: RestartPolicy | None = None
    ) -> None:
        self._logs = logs
        self._reaper = reaper
        self._warn = warn
        self._restart_policy = restart_policy or RestartPolicy()
        self._stages: list[list[_SupervisedChild]] = []

    def start(self, stage: Stage) -> None:
        """Start a stage and wait until all its children are ready; raises OperatorError if one is not.

        Call it from the main thread: see :mod:`compose.embedded.die_with_parent`.
        """
        children = []
        for plan in stage.children:
            log = self._logs / f"{plan.name}.log"
            log.write_bytes(b"")
            children.append(_SupervisedChild(Child(plan, log, self._reaper)))
        self._stages.append(children)
        for supervised in children:
            supervised.child.start()
        for supervised in children:
            supervised.child.wait_ready()

    def check_children(self) -> None:
        """Restart children that have died since the last check; raises OperatorError if one died too often."""
        for supervised in self._children():
            if supervised.restart_at is None and not supervised.child.is_alive():
                self._record_death(supervised)
            if supervised.restart_at is not None and time.monotonic() >= supervised.restart_at:
                supervised.restart_at = None
                supervised.child.start()
            _rotate_log(supervised.child.log)

    def replace_child(self, name: str, serves: Callable[[int], bool], environ: Mapping[str, str] | None = None) -> None:
        """Start a second process of the child ``name``, and stop the first one when ``serves(pid)`` of the second.

        ``environ`` is set for this start alone. Raises OperatorError if the second does not serve; then the first goes
        on. Call it from the main thread.
        """
        supervised = next(each for each in self._children() if each.child.plan.name == name)
        old, plan = supervised.child, supervised.child.plan
        new = Child(replace(plan, env={**plan.env, **(environ or {})}), old.log, self._reaper)
        new.start()
        new.plan = replace(plan, ready=lambda: new.pid is not None and serves(new.pid))
        try:
            new.wait_ready()
        except BaseException:
            new.kill()
            raise
        new.plan = plan
        supervised.child, supervised.restart_at = new, None
        try:
            old.stop()
        except BaseException:  # a signal to stop everything
            old.kill()
            raise

    def stop(self) -> None:
        """Stop all stages, the last one first; each child has its own grace period, then its group is killed."""
        while self._stages:
            stage = self._stages[-1]
            for supervised in reversed(stage):
                supervised.child.terminate()
            for supervised in reversed(stage):
                supervised.child.wait_stopped()
            self._stages.pop()

    def kill(self) -> None:
        """Kill everything at once; a signal handler may call it during :meth:`stop`, which then does the rest."""
        for supervised in self._children():
            supervised.child.kill_group()

    def _children(self) -> list[_SupervisedChild]:
        return [supervised for stage in self._stages for supervised in stage]

    def _record_death(self, supervised: _SupervisedChild) -> None:
        now, plan, policy = time.monotonic(), supervised.child.plan, self._restart_policy
        supervised.deaths.append(now)
        while now - supervised.deaths[0] > policy.window_s:
            supervised.deaths.popleft()
        code = supervised.child.exit_code
        reason = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        event = f"{plan.name} ended ({reason})"
        if len(supervised.deaths) > policy.restarts_max:
            raise OperatorError(
                f"{event}, {len(supervised.deaths)} times within {policy.window_s:g} s; it is not started again",
                fix=supervised.child.log_tail(),
            )
        supervised.restart_at = now + policy.backoff_s(len(supervised.deaths))
        self._warn(
            f"{event} and is started again, {len(supervised.deaths)} of {policy.restarts_max} times; "
            f"see {supervised.child.log}"
        )


def _rotate_log(log: Path) -> None:
    # The children append, so the log can be truncated while they write; the old part is kept beside it.
    if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
        log.with_suffix(".log.1").write_bytes(log.read_bytes())
        with log.open("r+b") as file:
            file.truncate(0)
