"""Checks and runs agents in a process of their own, for ``bucketd``, which never imports an agent itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compose.operator_error import OperatorError
from compose.own_agents.agent_checks import AgentReport
from compose.own_agents.trial_process import TrialJob, TrialOutcome


def check_folders(
    folders: Sequence[Path], *, runs_sample: bool = True, timeout_s: float | None = None
) -> Iterator[AgentReport]:
    """Yield a report on each agent, as it is ready; raises OperatorError if the checking process fails."""
    check = {"folders": [str(each) for each in folders], "runs_sample": runs_sample, "timeout_s": timeout_s}
    for line in _results_of({"check": check}):
        yield AgentReport(**line)


def run_job(job: TrialJob) -> TrialOutcome:
    """Run one attempt and return its outcome; what the agent logs and prints goes to stderr."""
    (line,) = _results_of({"run": asdict(job)})
    return TrialOutcome(**line)


def _results_of(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "compose.own_agents"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None  # noqa: S101 - for mypy; they were asked for as pipes
        assert process.stdout is not None  # noqa: S101
        try:
            with suppress(BrokenPipeError):  # then its exit code says more
                process.stdin.write(json.dumps(request))
                process.stdin.close()
            yield from map(json.loads, process.stdout)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise OperatorError(
            f"the process that checks agents ended with code {process.returncode}", fix="its output is above"
        )
