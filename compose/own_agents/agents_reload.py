"""Reload in ``make up``: when agents change, a second worker and a second API take over from the first ones.

The second worker comes first, so that the API accepts no run of a new agent that nobody has. Only when a process works
is its predecessor stopped, by SIGTERM: a worker then finishes its steps or hands them back. Agents that are wrong are
told, and nothing is restarted. Never in production, where ``bucketd up`` does not run.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from compose.cli import console
from compose.embedded.supervisor import Supervisor
from compose.operator_error import OperatorError
from compose.own_agents.agent_checks import find_agent_folders
from compose.own_agents.agents_watch import AgentsWatch
from compose.own_agents.trials import check_folders
from worker.supervision.child_processes import children_of

_TCP_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS: Final = "0A"
_LOAD_TIMEOUT_S: Final = 10.0
# api/gunicorn.py then takes the port for its own, not for taken, and makes a directory of metrics of its own.
_SUCCESSOR: Final = {"GUNICORN_PID": "0"}


class AgentsReload:
    """Watches the agents of one directory while a stack runs; call :meth:`check` again and again."""

    def __init__(self, directory: Path, watch: AgentsWatch, supervisor: Supervisor, api_url: str) -> None:
        """Print what is wrong with the agents of a stack that has started after ``watch`` had looked at them."""
        self._directory = directory
        self._supervisor = supervisor
        self._port = urlsplit(api_url).port or 80
        self._watch = watch
        self._unavailable = frozenset(self._print_faults(frozenset()) or ())

    def check(self) -> None:
        """Look for changes, and reload the agents, unless one is wrong that runs now: then the old ones go on."""
        if not (changed := self._watch.take_changes()):
            return
        began = time.monotonic()
        wrong = self._print_faults(self._unavailable)
        if wrong is None or wrong - self._unavailable:
            console.print_warning("the agents that run stay as they were")
            return
        try:
            self._supervisor.replace_child("worker", lambda pid: bool(children_of(pid)))
            self._supervisor.replace_child("api", lambda pid: is_served_by(pid, self._port), _SUCCESSOR)
        except OperatorError as error:
            console.print_failure("agents", error)
            return
        self._unavailable = wrong
        console.print_ok("agents", f"{', '.join(changed)} changed, reloaded", time.monotonic() - began)

    def _print_faults(self, known: frozenset[str]) -> frozenset[str] | None:
        """Check all agents without their samples, print what is wrong, and return the names of those that are.

        Those that are ``known`` to be wrong take one line. Return None if the check itself is not possible.
        """
        try:
            folders = find_agent_folders(self._directory)
            reports = list(check_folders(folders, runs_sample=False, timeout_s=_LOAD_TIMEOUT_S))
        except (OperatorError, OSError) as error:
            console.print_failure("agents", OperatorError("cannot be checked", fix=str(error)))
            return None
        for report in reports:
            for note in report.notes:
                console.print_warning(f"{report.name}: {note}")
            if report.faults:
                fix = "\n".join([*report.faults, *report.traceback.splitlines()])
                told = "is still wrong" if report.name in known else "is wrong"
                console.print_failure(report.name, OperatorError(told, fix="" if report.name in known else fix))
        return frozenset(report.name for report in reports if report.faults)


def is_served_by(pid: int, port: int) -> bool:
    """Return whether a child of ``pid`` listens on the TCP port ``port``: several processes may share it."""
    inodes = {
        fields[9]
        for table in _TCP_TABLES
        if table.exists()
        for fields in map(str.split, table.read_text().splitlines()[1:])
        if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port
    }
    return any(f"socket:[{inode}]" in _open_files_of(child) for child in children_of(pid) for inode in inodes)


def _open_files_of(pid: int) -> set[str]:
    files = set()
    try:
        for file in os.scandir(f"/proc/{pid}/fd"):
            files.add(os.readlink(file.path))  # noqa: PTH115 - the target is no path
    except OSError:  # the process, or its file, has just ended
        return set()
    return files
