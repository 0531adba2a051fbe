"""The process that checks and runs agents for ``bucketd``: it has no threads, and forks one process for each attempt.

It reads one JSON object from stdin, ``{"check": {...}}`` or ``{"run": {...}}``, and writes its results as JSON lines.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import stamina

from compose.embedded.die_with_parent import PR_SET_PDEATHSIG
from compose.own_agents.agent_checks import check_agent
from compose.own_agents.trial_process import TrialJob, run_trial


def main() -> None:
    """Do what stdin asks for."""
    # If bucketd is killed, this process still ends the agent that it runs.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    stamina.instrumentation.set_on_retry_hooks([])  # the gateway tells its retries in the run's log
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    if job := request.get("run"):
        results.write(json.dumps(asdict(run_trial(TrialJob(**job)))) + "\n")
    elif (check := request.get("check")) is not None:
        for folder in check["folders"]:
            report = check_agent(Path(folder), runs_sample=check["runs_sample"], timeout_s=check["timeout_s"])
            results.write(json.dumps(asdict(report)) + "\n")
            results.flush()
    results.flush()


if __name__ == "__main__":
    main()
