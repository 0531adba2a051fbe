"""The supervisor starts in order, restarts within its budget, and stops in reverse order."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.embedded.group_reaper import GroupReaper
from compose.embedded.process_plan import ChildPlan, RestartPolicy, Stage
from compose.embedded.supervisor import Supervisor
from compose.operator_error import OperatorError
from tests.waiting import is_running, wait_until

LIVES = """
import signal, sys, time
def end(*_):
    print("ends", time.monotonic_ns(), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", time.monotonic_ns(), flush=True)
while True:
    signal.pause()
"""
# It dies only after its start is complete: a child that has ended by then is a failed start.
DIES = """
import sys, time
from pathlib import Path
while not Path(sys.argv[1]).exists():
    time.sleep(0.01)
sys.exit(7)
"""


class Watched:
    """A supervisor with short periods, and its warnings."""

    def __init__(self, logs: Path, group_reaper: GroupReaper) -> None:
        self.logs = logs
        self.started = logs / "started"
        self.warnings: list[str] = []
        budget = RestartPolicy(restarts_max=3, window_s=30, backoff_base_s=0.01)
        self.supervisor = Supervisor(logs, group_reaper, self.warnings.append, budget)

    def stage(self, *names: str, program: str = LIVES) -> Stage:
        return Stage("stage", tuple(self.plan(name, program) for name in names))

    def plan(self, name: str, program: str) -> ChildPlan:
        argv = (sys.executable, "-c", program, str(self.started))
        return ChildPlan(name, argv, lambda: program == DIES or self.logged_at_ns(name, "ready") > 0)

    def logged_at_ns(self, name: str, word: str) -> int:
        for line in (self.logs / f"{name}.log").read_text().splitlines():
            if line.startswith(word):
                return int(line.split()[1])
        return 0

    def pid(self, name: str) -> int:
        pid = pids_of(self.supervisor)[name]
        assert pid is not None
        return pid


def pids_of(supervisor: Supervisor) -> dict[str, int | None]:
    return {supervised.child.plan.name: supervised.child.pid for supervised in supervisor._children()}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with GroupReaper() as group_reaper:
        watched = Watched(tmp_path, group_reaper)
        yield watched
        watched.supervisor.stop()


def test_stages_start_in_order_and_stop_in_reverse(watched: Watched) -> None:
    watched.supervisor.start(watched.stage("redis"))
    watched.supervisor.start(watched.stage("api", "worker"))
    watched.supervisor.stop()
    started = {name: watched.logged_at_ns(name, "ready") for name in ("redis", "api", "worker")}
    ended = {name: watched.logged_at_ns(name, "ends") for name in ("redis", "api", "worker")}
    assert started["redis"] < min(started["api"], started["worker"])
    assert 0 < max(ended["api"], ended["worker"]) < ended["redis"]


def test_a_child_that_dies_is_reported_and_started_again(watched: Watched) -> None:
    watched.supervisor.start(watched.stage("api", "worker"))
    killed = watched.pid("worker")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_running(killed))
    watched.supervisor.check_children()
    (warning,) = watched.warnings
    assert "worker ended (killed by signal 9) and is started again, 1 of 3 times" in warning
    assert watched.pid("worker") != killed
    assert is_running(watched.pid("worker"))
    watched.supervisor.check_children()
    assert len(watched.warnings) == 1, "a child that lives is not reported"


def test_a_child_that_goes_on_dying_uses_up_its_budget(watched: Watched) -> None:
    watched.supervisor.start(watched.stage("api"))
    watched.supervisor.start(watched.stage("worker", program=DIES))
    watched.started.touch()

    def gives_up() -> bool:
        try:
            watched.supervisor.check_children()
        except OperatorError as trouble:
            return "worker ended (exit code 7), 4 times within 30 s; it is not started again" in str(trouble)
        return False

    wait_until(gives_up)
    assert [warning.split(", ")[1].split(";")[0] for warning in watched.warnings] == [
        "1 of 3 times",
        "2 of 3 times",
        "3 of 3 times",
    ]
    watched.supervisor.stop()
    assert watched.logged_at_ns("api", "ends")


def test_deaths_long_ago_do_not_count(tmp_path: Path) -> None:
    with GroupReaper() as group_reaper:
        supervisor = Supervisor(
            tmp_path, group_reaper, lambda _: None, RestartPolicy(restarts_max=1, window_s=0.0, backoff_base_s=0)
        )
        supervisor.start(Stage("stage", (ChildPlan("child", (sys.executable, "-c", "import time; time.sleep(600)")),)))
        for _ in range(3):
            killed = pids_of(supervisor)["child"]
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            while is_running(killed):
                time.sleep(0.01)
            supervisor.check_children()
            assert pids_of(supervisor)["child"] not in {None, killed}
        supervisor.stop()


def test_kill_ends_everything_at_once_and_stop_reaps_it(watched: Watched) -> None:
    watched.supervisor.start(watched.stage("api", "worker"))
    pids = [watched.pid("api"), watched.pid("worker")]
    watched.supervisor.kill()
    wait_until(lambda: not any(map(is_running, pids)))
    watched.supervisor.stop()
    assert not watched.logged_at_ns("api", "ends")


def test_each_start_of_a_stage_begins_an_empty_log(watched: Watched) -> None:
    (watched.logs / "api.log").write_text("of the last time\n")
    watched.supervisor.start(watched.stage("api"))
    assert "last time" not in (watched.logs / "api.log").read_text()


def test_a_log_that_grows_too_long_is_cut_and_goes_on(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compose.embedded.supervisor._LOG_BYTES_MAX", 4)
    watched.supervisor.start(watched.stage("api"))
    watched.supervisor.check_children()
    assert (watched.logs / "api.log").stat().st_size == 0
    assert "ready" in (watched.logs / "api.log.1").read_text()
    watched.supervisor.stop()
    assert (watched.logs / "api.log").read_text().startswith("ends")


def test_a_replaced_child_ends_once_its_successor_serves(watched: Watched) -> None:
    watched.supervisor.start(watched.stage("a"))
    first = watched.pid("a")
    served: list[int] = []

    def serves(pid: int) -> bool:
        assert is_running(first), "the first serves until then"
        served.append(pid)
        return len(served) > 1

    watched.supervisor.replace_child("a", serves)
    assert watched.pid("a") == served[-1] != first
    assert not is_running(first)
    watched.supervisor.check_children()
    assert watched.warnings == []


def test_a_child_goes_on_if_its_successor_does_not_serve(watched: Watched) -> None:
    watched.supervisor.start(watched.stage("a"))
    first = watched.pid("a")
    with pytest.raises(OperatorError, match="ended at once"):
        watched.supervisor.replace_child("a", lambda _: False, {"PYTHONHOME": "/nowhere"})
    assert watched.pid("a") == first
    assert is_running(first)
