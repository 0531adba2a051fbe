"""Commands as real processes: how they end, and that nothing of them outlives their run."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from bucket_client.integration_check.definition import IntegrationDefinition
from bucket_client.integration_check.scenario_runs import CommandEnd, run_command
from tests.waiting import is_running, wait_until

WITH_A_CHILD = """
import pathlib
import subprocess
import sys
import time

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("pid.new").write_text(str(child.pid))
pathlib.Path("pid.new").rename("pid")
time.sleep({sleep_s})
"""
DRIVER = """
import asyncio
import pathlib
import sys

from bucket_client.integration_check.definition import IntegrationDefinition
from bucket_client.integration_check.scenario_runs import run_command

folder = pathlib.Path.cwd()
command = (sys.executable, "command.py")
definition = IntegrationDefinition("name", "basket", folder / "mapping.md", command, folder, ())
asyncio.run(run_command(definition, {}, 600))
"""


def run(folder: Path, program: str, time_limit_s: float = 60.0) -> CommandEnd:
    command = (sys.executable, "-c", program)
    definition = IntegrationDefinition("name", "basket", folder / "mapping.md", command, folder, ())
    return asyncio.run(run_command(definition, {"BUCKET_URL": "http://127.0.0.1:9"}, time_limit_s))


def child_of(folder: Path) -> int:
    return int((folder / "pid").read_text())


def test_the_command_runs_in_its_folder_with_the_address(tmp_path: Path) -> None:
    end = run(tmp_path, "import os; print(os.getcwd(), os.environ['BUCKET_URL'])")
    assert end.is_well
    assert end.output == f"{tmp_path} http://127.0.0.1:9\n"


def test_of_the_output_the_last_lines_are_shown(tmp_path: Path) -> None:
    end = run(tmp_path, "print('a' * 100_000); [print(n) for n in range(99)]; raise SystemExit(3)")
    assert len(end.output) == 64 * 1024
    assert end.detail.splitlines()[0] == "exit code 3; its last output:"
    assert end.detail.splitlines()[1:] == [f"  {number}" for number in range(84, 99)]


def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    end = run(tmp_path, WITH_A_CHILD.format(sleep_s=600), time_limit_s=3.0)
    assert end.exit_code is None
    assert "did not end within 3 s and was killed" in end.detail
    wait_until(lambda: not is_running(child_of(tmp_path)), what="the child is killed")


def test_what_a_command_left_running_is_killed_at_its_end(tmp_path: Path) -> None:
    assert run(tmp_path, WITH_A_CHILD.format(sleep_s=0)).is_well
    wait_until(lambda: not is_running(child_of(tmp_path)), what="the child is killed")


def test_an_interrupt_kills_the_command(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(WITH_A_CHILD.format(sleep_s=600))
    with subprocess.Popen([sys.executable, "-c", DRIVER], cwd=tmp_path, stderr=subprocess.PIPE) as driver:
        wait_until((tmp_path / "pid").exists, within_s=30)
        driver.send_signal(signal.SIGINT)
        _, errors = driver.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    wait_until(lambda: not is_running(child_of(tmp_path)), what="the child is killed")


def test_a_command_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    definition = IntegrationDefinition("name", "basket", tmp_path, (str(tmp_path),), tmp_path, ())
    end = asyncio.run(run_command(definition, {}, 1.0))
    assert not end.is_well
    assert "cannot be started" in end.detail
