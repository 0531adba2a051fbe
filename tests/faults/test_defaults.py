"""Default settings: the step of a killed worker runs elsewhere within 45 s, that of a stopped worker at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.setting_readers import VARIABLES
from shared.settings import Settings
from tests.api_client import AGENTS, RunClient
from tests.stack import Stack
from tests.waiting import wait_until

WITHIN_S = 45
PERIODS = ("lease_s", "heartbeat_s", "handoff_s", "grace_s", "drain_s")
DEFAULTS = {VARIABLES[name][0]: str(getattr(Settings(), name)) for name in PERIODS}


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), **DEFAULTS)


def test_at_default_settings_a_killed_workers_step_runs_elsewhere_within_45_s(stack: Stack, tmp_path: Path) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    run = runs.submit(
        "counter", "echo", first_s=600
    ).execution_id  # killed during it, however long the other worker needs
    runs.wait_begun(run)
    with stack.second_process("worker"):
        stack.kill("worker")
        started_at = time.monotonic()
        wait_until(lambda: len(runs.counter_lines_of(run)) == 2, WITHIN_S, "it began elsewhere")
        waited = time.monotonic() - started_at
        assert runs.wait_done(run)["status"] == "completed"
    stack.start("worker")
    assert waited > 15, "but not while its lease may still be renewed"


def test_at_default_settings_a_stopped_workers_step_continues_at_once(stack: Stack, tmp_path: Path) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    path = tmp_path / "once"
    run = runs.submit("sleeper_once", path=str(path), seconds=600).execution_id
    wait_until(path.exists, 10, "its agent sleeps")
    with stack.second_process("worker"):
        stack.stop("worker")
        assert stack.exit_code("worker") == 0
        started_at = time.monotonic()
        assert runs.wait_done(run, 20)["status"] == "completed"
        assert time.monotonic() - started_at < 10
    stack.start("worker")
