"""gunicorn's settings, tested with the real program and a small application."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.waiting import wait_until

APPLICATION = """
import gc
import os
import flask
from api.gunicorn_worker import START_BACKGROUND
from api.http import middleware, problems
from shared.settings import Settings
from shared.telemetry.request_metrics import render_exposition

app = flask.Flask(__name__, static_folder=None)
middleware.register_middleware(app, Settings.from_environ())
problems.register_error_handlers(app)
app.add_url_rule("/thing", "thing", lambda: {"a": 1})
app.add_url_rule("/process", "process", lambda: {"pid": os.getpid()})
loaded_by, started_by = os.getpid(), []
app.extensions[START_BACKGROUND] = lambda: started_by.append(os.getpid())
app.add_url_rule(
    "/memory", "memory", lambda: {"loaded": loaded_by, "started": started_by, "frozen": gc.get_freeze_count()}
)
app.add_url_rule("/metrics", "metrics", lambda: render_exposition().decode())
"""
RUN = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn", "small:app"]


def environ(**overrides: str) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith(("BUCKET_", "PROMETHEUS_"))}
    return base | overrides


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, deadline: float) -> str:
    """Return the page, once the server is up."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310  our own address
                return str(response.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_it_serves_counts_over_its_processes_and_logs_json(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(APPLICATION)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter_1.db").write_bytes(b"of a dead process")
    port = free_port()
    env = environ(
        PORT=str(port), PYTHONPATH=str(tmp_path), HOME=str(tmp_path), PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "metrics")
    )
    env.pop("XDG_RUNTIME_DIR", None)
    with subprocess.Popen(RUN, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            deadline = time.monotonic() + 20
            for _ in range(10):
                assert json.loads(fetch(f"http://127.0.0.1:{port}/thing", deadline)) == {"a": 1}
            figures = fetch(f"http://127.0.0.1:{port}/metrics", deadline)
            second = subprocess.run(RUN, env=env, capture_output=True, text=True, timeout=20, check=False)
        finally:
            server.send_signal(signal.SIGTERM)
            out, err = server.communicate(timeout=20)
    assert 'request_rate_total{endpoint="/thing",service="api"} 10.0' in figures
    assert err == ""
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["service"] for line in lines} == {"api"}
    assert [line["route"] for line in lines if line["event"] == "request"] == ["/thing"] * 10
    assert not (tmp_path / ".gunicorn").exists()  # no control socket
    assert (second.returncode, second.stdout) == (os.EX_UNAVAILABLE, "")
    assert second.stderr == (
        f"bucket api: cannot listen on 127.0.0.1:{port}: Address already in use; set HOST or PORT to another\n"
    )


@contextmanager
def small_server(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Serve the small application with one process; yield the master, the port and the id of the process."""
    (directory / "small.py").write_text(APPLICATION)
    port = free_port()
    env = environ(PORT=str(port), PYTHONPATH=str(directory), HOME=str(directory), BUCKET_API_PROCESSES="1")
    with subprocess.Popen(RUN, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            process = json.loads(fetch(f"http://127.0.0.1:{port}/process", time.monotonic() + 20))["pid"]
            yield server, port, process
        finally:
            server.terminate()


def test_a_worker_without_its_master_ends_although_one_caller_keeps_sending_requests(tmp_path: Path) -> None:
    with small_server(tmp_path) as (server, port, worker):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as caller:
            for _ in range(3):
                assert fetch_pid(caller) == worker
            server.kill()
            server.wait(5)
            wait_until(lambda: fetch_pid(caller) is None, 10, "the caller is sent away")
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), 10, "the worker has ended")


def test_the_master_loads_the_application_for_all_and_each_process_starts_its_own_threads(tmp_path: Path) -> None:
    with small_server(tmp_path) as (server, port, worker):
        memory = json.loads(fetch(f"http://127.0.0.1:{port}/memory", time.monotonic() + 20))
    assert (memory["loaded"], memory["started"]) == (server.pid, [worker])
    assert memory["frozen"] > 10_000  # objects, which a collection in a worker neither looks at nor copies


def fetch_pid(caller: http.client.HTTPConnection) -> int | None:
    """Return the process id of the worker that replied; None if there is no reply any more."""
    try:
        caller.request("GET", "/process")
        return int(json.loads(caller.getresponse().read())["pid"])
    except (OSError, http.client.HTTPException):
        return None


def test_a_wrong_agent_is_reported_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "agent_spec.json").write_text("{}")
    env = environ(PORT=str(free_port()), BUCKET_AGENTS_DIR=str(tmp_path))
    command = [*RUN[:-1], "api.wsgi:app"]
    process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert (process.returncode, process.stdout) == (1, "")
    first_line, *more_lines = process.stderr.splitlines()
    assert first_line == f"the API cannot start: {tmp_path}/mine/agent_spec.json: name is missing"
    assert all(line.endswith(" is missing") for line in more_lines)


def test_wrong_settings_are_reported_together_without_a_traceback() -> None:
    env = environ(PORT="many", BUCKET_API_THREADS="0")
    process = subprocess.run(RUN, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert (process.returncode, process.stdout) == (os.EX_CONFIG, "")
    assert [line.split(":")[1].strip() for line in process.stderr.splitlines()] == ["BUCKET_API_THREADS", "PORT"]
