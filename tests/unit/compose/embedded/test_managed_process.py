"""Managed process: a child starts, serves and ends with all its descendants, even if it resists."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import ChildPlan
from compose.operator_error import OperatorError
from tests.waiting import descendants, is_paused, is_running, wait_until

FOREVER = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
WITH_GRANDCHILD = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {DEAF!r}])
time.sleep(600)
"""


def a_child(tmp_path: Path, program: str, *, stop_within_s: float = 5, start_within_s: float = 5) -> Child:
    log = tmp_path / "child.log"
    plan = ChildPlan(
        name="child",
        argv=(sys.executable, "-c", program),
        ready=lambda: b"ready" in log.read_bytes(),
        start_timeout_s=start_within_s,
        stop_timeout_s=stop_within_s,
    )
    return Child(plan, log)


def test_a_child_that_heeds_sigterm_ends_by_it(tmp_path: Path) -> None:
    child = a_child(tmp_path, f"print('ready', flush=True); {FOREVER}")
    child.start()
    child.wait_ready()
    assert child.is_alive()
    child.stop()
    assert child.exit_code == -signal.SIGTERM
    assert not child.is_alive()


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    child = a_child(tmp_path, DEAF, stop_within_s=0.3)
    child.start()
    child.wait_ready()
    began = time.monotonic()
    child.stop()
    assert child.exit_code == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - began < 2


def test_a_paused_child_can_be_stopped(tmp_path: Path) -> None:
    child = a_child(tmp_path, f"print('ready', flush=True); {FOREVER}")
    child.start()
    child.wait_ready()
    child.pause()
    wait_until(lambda: is_paused(child.pid or 0))
    child.stop()
    assert child.exit_code == -signal.SIGTERM


@pytest.mark.parametrize("end", ["stop", "kill", "die"])
def test_nothing_that_a_child_started_outlives_it(tmp_path: Path, end: str) -> None:
    child = a_child(tmp_path, WITH_GRANDCHILD)
    child.start()
    child.wait_ready()
    assert child.pid is not None
    family = {child.pid, *descendants(child.pid)}
    assert len(family) == 2
    if end == "die":
        subprocess.run(["kill", "-9", str(child.pid)], check=True)
        wait_until(lambda: not child.is_alive())
    else:
        getattr(child, end)()
    wait_until(lambda: not any(map(is_running, family)))


def test_a_child_that_ends_while_it_starts_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    child = a_child(tmp_path, "import sys; print('no libcurl here'); sys.exit(3)")
    child.start()
    with pytest.raises(OperatorError, match="child ended at once, with code 3") as caught:
        child.wait_ready()
    assert "child | no libcurl here" in caught.value.fix
    assert str(tmp_path / "child.log") in caught.value.fix


def test_a_child_that_is_never_ready_is_reported_with_the_reason(tmp_path: Path) -> None:
    child = a_child(tmp_path, FOREVER, start_within_s=0.2)
    child.log = tmp_path / "elsewhere"
    child.start()
    with pytest.raises(OperatorError, match=r"not ready within 0.2 s \(.*child.log"):
        child.wait_ready()
    child.kill()


def test_a_missing_program_is_reported_like_any_other_end(tmp_path: Path) -> None:
    child = Child(ChildPlan("child", ("/nowhere/at-all",)), tmp_path / "log")
    child.start()
    wait_until(lambda: not child.is_alive())
    assert "/nowhere/at-all" in child.log_tail() or "FileNotFoundError" in child.log_tail()


def test_a_thread_that_ends_starts_no_child_that_would_end_with_it(tmp_path: Path) -> None:
    child = a_child(tmp_path, FOREVER)
    with ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="start it from the main thread"):
        thread.submit(child.start).result()
    assert child.pid is None


def test_sigkill_of_the_parent_ends_the_child_and_the_reaper_ends_what_the_child_started(tmp_path: Path) -> None:
    parent = start_a_parent(tmp_path, guarded=True)
    wait_until(lambda: "ready" in (tmp_path / "log").read_text())
    family = descendants(parent.pid)
    assert len(family) == 3, "the group reaper, the child and the grandchild"
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_running, family)), within_s=3)


def test_without_a_reaper_the_parent_death_signal_ends_the_child_alone(tmp_path: Path) -> None:
    parent = start_a_parent(tmp_path, guarded=False)
    wait_until(lambda: "ready" in (tmp_path / "log").read_text())
    (child,) = (pid for pid in descendants(parent.pid) if pid not in grandchildren(parent.pid))
    (grandchild,) = grandchildren(parent.pid)
    parent.kill()
    parent.wait()
    try:
        wait_until(lambda: not is_running(child), within_s=3)
        assert is_running(grandchild)
    finally:
        subprocess.run(["kill", "-9", str(grandchild)], check=True)


def start_a_parent(tmp_path: Path, *, guarded: bool) -> subprocess.Popen[bytes]:
    program = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from compose.embedded.managed_process import Child
        from compose.embedded.group_reaper import GroupReaper
        from compose.embedded.process_plan import ChildPlan
        plan = ChildPlan("child", (sys.executable, "-c", {WITH_GRANDCHILD!r}))
        Child(plan, Path({str(tmp_path / "log")!r}), GroupReaper() if {guarded} else None).start()
        time.sleep(600)
    """)
    (tmp_path / "log").touch()
    return subprocess.Popen([sys.executable, "-c", program])


def grandchildren(pid: int) -> set[int]:
    return {grandchild for child in descendants(pid) for grandchild in descendants(child)}


def test_the_group_reaper_leaves_unregistered_processes_alone() -> None:
    left = subprocess.Popen([sys.executable, "-c", FOREVER], start_new_session=True)
    ended = subprocess.Popen([sys.executable, "-c", FOREVER], start_new_session=True)
    try:
        with GroupReaper() as group_reaper:
            group_reaper.register(left.pid)
            group_reaper.register(ended.pid)
            group_reaper.unregister(left.pid)
        assert ended.wait(timeout=3) == -signal.SIGKILL
        assert left.poll() is None
    finally:
        left.kill()
        left.wait()
