"""A test that failed while the machine stood still is run once more; any other failure stays one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

_CONFTEST: Final = """
from tests.stall_watch import RepeatAfterStall

def pytest_configure(config):
    config.pluginmanager.register(RepeatAfterStall())
"""
_TESTS: Final = """
import os, signal, subprocess, sys, time

attempts = []
WAKE = "import os, signal, sys, time; time.sleep(1); os.kill(int(sys.argv[1]), signal.SIGCONT)"

def test_that_fails_during_a_stall():
    attempts.append(1)
    if len(attempts) == 1:
        with subprocess.Popen([sys.executable, "-c", WAKE, str(os.getpid())]):
            os.kill(os.getpid(), signal.SIGSTOP)
        raise AssertionError("the machine stood still")
    time.sleep(0.3)  # until the watch has noted the stall, which must not count for the next test

def test_that_is_wrong():
    attempts.append(1)
    assert len(attempts) > 3
"""


def test_only_a_failure_during_a_stall_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_stalls.py").write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout
    assert "test_stalls.py::test_that_is_wrong" in ran.stdout
    assert "test_that_fails_during_a_stall: run twice, because the machine" in ran.stdout
