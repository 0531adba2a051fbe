"""The short form of ``make flood``: many runs in flight, many pollers, and no wrong response."""

from __future__ import annotations

import subprocess
import sys


def test_runs_in_flight_are_polled_without_an_error_and_without_going_back() -> None:
    short = ["--executions", "400", "--clients", "40", "--within", "120"]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.flood", *short], capture_output=True, text=True, timeout=200, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "executions in flight at once   400\n" in process.stdout
