"""``bucketd top`` with real servers: once as lines, once as JSON, with nobody there and with a store away."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner, Result

from compose.cli.commands import command_group
from compose.top.top_screen import format_snapshot
from shared.bootstrap import bootstrap
from shared.domain.execution import ErrorKind, RunError
from shared.domain.lifecycle.transitions import fail
from shared.settings import Settings
from tests.builders import NOON, accept_decision, claim_decision


def top(redis_url: str, mongodb_url: str, *words: str) -> Result:
    return CliRunner().invoke(command_group, ["top", *words], env={"REDIS_URL": redis_url, "MONGODB_URL": mongodb_url})


@pytest.fixture
def failed_run(redis_url: str, mongodb_url: str) -> str:
    """The id of a failed run, whose error tries to control the terminal."""
    services = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "operator")
    with closing(services.redis), closing(services.database):
        services.database.ensure_indexes()
        run = services.store.create(accept_decision("a"))
        run = services.store.save(run, claim_decision(run, "a")).execution
        lease = run.lease_of("a")
        error = RunError("worker_lost", "lost \x1b[2J\x07twice", ErrorKind.LOST, "a", "a", 3)
        services.store.save(run, fail(run, lease, error, NOON), lease=lease)
    return run.id


def test_it_prints_queues_workers_and_failures_once_where_there_is_no_terminal(
    redis_url: str, mongodb_url: str, failed_run: str
) -> None:
    shown = top(redis_url, mongodb_url)
    assert shown.exit_code == 0, shown.output
    for text in ("QUEUE", "default", "long", "no worker is there", "NEWEST FAILURES", failed_run, "worker_lost"):
        assert text in shown.output
    assert "lost ?[2J?twice" in shown.output
    assert "\x1b" not in shown.output


def test_json_has_what_the_routes_reply(redis_url: str, mongodb_url: str, failed_run: str) -> None:
    shown = top(redis_url, mongodb_url, "--json")
    snapshot = json.loads(shown.output)
    assert snapshot["workers"]["workers"] == []
    assert snapshot["stats"]["queues"]["default"]["workers"] == 0
    assert [row["execution_id"] for row in snapshot["failures"]["executions"]] == [failed_run]


def test_a_part_that_is_away_says_so_and_shows_no_figures() -> None:
    away = {"error_code": "unavailable", "detail": "Redis does not answer"}
    snapshot = {
        "at": "now",
        "health": {"status": "degraded", "reasons": ["Redis is away"]},
        "stats": away,
        "workers": away,
        "failures": {"executions": []},
    }
    lines = list(format_snapshot(snapshot))
    assert lines[:2] == ["Bucket is degraded   now", "  ! Redis is away"]
    assert "QUEUES: Redis does not answer" in lines
    assert "WORKERS: Redis does not answer" in lines


def test_in_a_terminal_it_is_drawn_again_until_it_is_interrupted(redis_url: str, mongodb_url: str) -> None:
    main, terminal = os.openpty()
    environ = {**os.environ, "REDIS_URL": redis_url, "MONGODB_URL": mongodb_url, "TERM": "xterm"}
    program = "from compose.cli.commands import command_group; command_group()"
    command = [sys.executable, "-c", program, "top", "--every", "0.5"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=environ) as process:
        os.close(terminal)
        shown = b""
        while shown.count(b"NEWEST FAILURES") < 3:
            assert select.select([main], [], [], 20)[0], shown
            shown += os.read(main, 65_536)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, process.stderr and process.stderr.read()
    os.close(main)
    assert b"\x1b[" in shown, "the screen is cleared before each"


def test_without_a_stack_it_says_which_settings_are_needed(tmp_path: object) -> None:
    refused = CliRunner().invoke(command_group, ["top", "--data", f"{tmp_path}"])
    assert (refused.exit_code, "REDIS_URL and MONGODB_URL" in refused.output) == (1, True)
