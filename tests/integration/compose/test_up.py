"""``bucketd up`` as a user sees it: real redis-server and mongod, stand-ins for Bucket's own processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from compose.embedded.managed_process import Child
from shared.live.redis_client import connect
from tests.waiting import descendants, is_running, wait_until

STAND_INS = Path(__file__).parent / "stand_ins"
Up = Callable[..., "Running"]


class Running:
    """One ``bucketd up`` process and its output."""

    def __init__(self, data: Path, output_file: Path, *options: str, **environ: str) -> None:
        self.data = data
        self._said = output_file
        with output_file.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from compose.cli import main; main()", "up", "--data", str(data), *options],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=data.parent,
                env={**os.environ, "PORT": "0", "PYTHONPATH": str(STAND_INS), **environ},
            )

    @property
    def output(self) -> str:
        return self._said.read_text()

    @property
    def family(self) -> set[int]:
        return descendants(self.process.pid)

    def wait_up(self) -> None:
        wait_until(lambda: "Ctrl-C stops everything" in self.output or self.process.poll() is not None, 20, self.output)
        assert self.process.poll() is None, self.output

    def ends(self, within_s: float = 15) -> int:
        return self.process.wait(timeout=within_s)

    def children(self, command: str) -> set[int]:
        return {pid for pid in self.family if command in command_of(pid)}

    def child(self, command: str) -> int:
        (pid,) = self.children(command)
        return pid


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started: list[Running] = []

    def start(*options: str, **environ: str) -> Running:
        (tmp_path / "home").mkdir(exist_ok=True)
        running = Running(tmp_path / "home" / "data", tmp_path / f"said-{len(started)}", *options, **environ)
        started.append(running)
        return running

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


def test_up_prints_five_check_marks_and_then_what_to_try(up: Up) -> None:
    running = up()
    running.wait_up()
    ticked = [line.split("  ")[0] for line in running.output.splitlines() if line.startswith("✓")]
    assert ticked == ["✓ python", "✓ packages", "✓ redis", "✓ mongod", "✓ api and workers"]
    assert (
        running.output.index("✓ api and workers") < running.output.index("completed in") < running.output.index("curl")
    )
    assert "stand-in" not in running.output, "quiet without -v"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order_with_exit_code_0(up: Up, number: signal.Signals) -> None:
    running = up("-v")
    running.wait_up()
    # `up` does not wait for the worker, which may not handle signals yet.
    wait_until(lambda: "worker     | the worker stand-in starts" in running.output, 10, "the worker has started")
    family = running.family
    assert len(family) == 6, "redis, mongod, api and its child, worker, group reaper"
    sockets = sockets_of(running)
    running.process.send_signal(number)
    assert running.ends() == 0
    assert not any(map(is_running, family))
    assert not sockets.exists()
    assert "api        | the api stand-in starts" in running.output
    assert "worker     | the worker stand-in ends" in running.output, "stopped by a signal, and not killed"
    assert "bye bye" in running.output, "Redis too"


def test_sigkill_of_a_child_is_reported_and_the_child_is_restarted(up: Up) -> None:
    running = up()
    running.wait_up()
    worker = running.child("--reconciler")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "worker ended (killed by signal 9) and is started again" in running.output)
    wait_until(lambda: running.children("--reconciler") - {worker})


def test_sigkill_of_bucketd_leaves_no_process_and_does_not_prevent_the_next(up: Up) -> None:
    bucketd = up()
    bucketd.wait_up()
    family, sockets = bucketd.family, sockets_of(bucketd)
    bucketd.process.kill()
    bucketd.process.wait()
    wait_until(lambda: not any(map(is_running, family)), within_s=5)
    assert not sockets.exists()
    up().wait_up()


def test_processes_left_after_a_kill_of_the_group_reaper_are_removed_by_the_next(up: Up) -> None:
    bucketd = up()
    bucketd.wait_up()
    sockets, group_reaper = sockets_of(bucketd), bucketd.child("group_reaper.py")
    (grandchild,) = descendants(bucketd.child("gunicorn"))
    os.kill(group_reaper, signal.SIGKILL)
    bucketd.process.kill()
    bucketd.process.wait()
    os.kill(grandchild, signal.SIGKILL)
    assert sockets.exists()
    second = up()
    second.wait_up()
    assert not sockets.exists()


def test_a_second_up_says_that_one_is_running(up: Up) -> None:
    bucketd = up()
    bucketd.wait_up()
    second = up()
    assert second.ends() == 1
    match = re.search(r"  API     (\S+)", bucketd.output)
    assert match
    assert f"running here already: {match[1]} (pid {bucketd.process.pid})" in second.output
    assert bucketd.process.poll() is None


def test_a_used_port_is_reported_and_nothing_is_started(up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        running = up(PORT=str(port))
        assert running.ends() == 1
    assert f"port {port} is taken by another program" in running.output
    assert f"PORT={port + 1} make up" in running.output
    assert "✓ redis" not in running.output


def test_production_is_refused(up: Up) -> None:
    running = up(BUCKET_ENV="production")
    assert running.ends() == 1
    assert "compose/compose.yaml" in running.output


def test_wrong_settings_are_all_reported_together(up: Up) -> None:
    running = up(PORT="-1", BUCKET_LEASE_S="soon")
    assert running.ends() == 1
    assert "PORT: " in running.output
    assert "BUCKET_LEASE_S: " in running.output
    assert "Traceback" not in running.output


def test_servers_given_by_url_are_used_and_not_started(up: Up, redis_url: str, mongodb_url: str) -> None:
    running = up(REDIS_URL=redis_url, MONGODB_URL=mongodb_url)
    running.wait_up()
    assert len(running.family) == 4, "api and its child, worker, group reaper"


def test_a_first_submit_that_gets_503_is_sent_again(up: Up) -> None:
    running = up(STAND_IN_REFUSALS="2")
    running.wait_up()
    assert "A first run completed in" in running.output


def test_up_does_not_report_success_if_the_first_run_fails(up: Up) -> None:
    running = up(STAND_IN_TOTAL="999")
    assert running.ends() == 1
    assert "the self-test run is completed, with" in running.output
    assert "curl" not in running.output
    assert str(running.data / "log" / "api.log") in running.output
    assert not running.family


def test_a_child_that_cannot_start_is_reported_with_its_last_output(up: Up, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "gunicorn.py").write_text("raise SystemExit('no such flag')")
    running = up(PYTHONPATH=f"{broken}:{STAND_INS}")
    assert running.ends() == 1
    assert "api ended at once, with code 1" in running.output
    assert "api | no such flag" in running.output


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # it has just ended


def sockets_of(running: Running) -> Path:
    match = re.search(rb"unixsocket:(\S+)/redis.sock", Path(f"/proc/{running.child('redis')}/cmdline").read_bytes())
    assert match
    return Path(match[1].decode())


def test_a_redis_given_by_url_is_refused_if_it_cannot_serve_and_warned_of_if_it_should_be_changed(
    up: Up, own_redis: tuple[Child, str], mongodb_url: str
) -> None:
    with closing(connect(own_redis[1])) as client:
        client.replicaof("127.0.0.1", "1")
        refused = up(REDIS_URL=own_redis[1], MONGODB_URL=mongodb_url)
        assert refused.ends() == 1
        assert "the Redis of REDIS_URL is a read-only replica\n    name the primary" in refused.output
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory-policy", "allkeys-lru")
    running = up(REDIS_URL=own_redis[1], MONGODB_URL=mongodb_url)
    running.wait_up()
    assert "! REDIS_URL: maxmemory-policy is allkeys-lru" in running.output
    assert "! MONGODB_URL: MongoDB 6.0" in running.output
