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
from contextlib import ExitStack, closing, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests.waiting import is_running, wait_until

APPLICATION = """
import gc
import os
import signal
import time
from pathlib import Path
import flask
from gevent import monkey
import api.gunicorn_worker
from api.gunicorn_worker import START_BACKGROUND
from api.http import middleware, problems
from shared.settings import Settings
from shared.telemetry.request_metrics import render_exposition

app = flask.Flask(__name__, static_folder=None)
middleware.register_middleware(app, Settings.from_environ())
problems.register_error_handlers(app)
app.add_url_rule("/thing", "thing", lambda: {"a": 1})
app.add_url_rule("/process", "process", lambda: {"pid": os.getpid()})

@app.get("/slow")
def slow():
    Path(__file__).with_name("begun").touch()
    time.sleep(float(flask.request.args.get("seconds", 1.5)))
    return {"a": 1}

loaded_by, started_by = os.getpid(), []
app.extensions[START_BACKGROUND] = lambda: started_by.append(os.getpid())
app.add_url_rule(
    "/memory", "memory", lambda: {"loaded": loaded_by, "started": started_by, "frozen": gc.get_freeze_count()}
)

@app.get("/end-between-two-heartbeats")
def end():
    thread, pause = monkey.get_original("_thread", "start_new_thread"), monkey.get_original("time", "sleep")
    def end_worker():
        pause(0.5)
        signal.pthread_kill(thread_id(), signal.SIGTERM)
        pause(60)
    thread_id = monkey.get_original("_thread", "get_ident")
    thread(end_worker, ())
    return {}

api.gunicorn_worker._NOTIFY_EVERY_S = float(os.environ.get("NOTIFY_EVERY_S", 5))
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
def small_server(
    directory: Path, *options: str, **variables: str
) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Serve the small application with one process; yield the master, the port and the id of the process.

    What it says on stderr is in the file ``stderr``.
    """
    (directory / "small.py").write_text(APPLICATION)
    port = free_port()
    env = environ(PORT=str(port), PYTHONPATH=str(directory), HOME=str(directory), BUCKET_API_PROCESSES="1", **variables)
    with (
        (directory / "stderr").open("wb") as said,
        subprocess.Popen([*RUN, *options], env=env, stdout=subprocess.DEVNULL, stderr=said) as server,
    ):
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


def test_a_request_in_progress_is_answered_and_is_the_last_of_its_connection(tmp_path: Path) -> None:
    with small_server(tmp_path) as (server, port, worker), kept_connection(port) as caller:
        caller.request("GET", "/slow")
        wait_until((tmp_path / "begun").exists, 5, "it has begun")
        server.terminate()
        response = caller.getresponse()
        assert (response.status, response.getheader("Connection")) == (200, "close")
        assert response.read()
        caller.close()
        wait_until(lambda: not is_running(worker), 6, "the worker has ended")


def test_a_request_in_progress_is_answered_although_the_master_is_dead(tmp_path: Path) -> None:
    with small_server(tmp_path) as (server, port, worker), kept_connection(port) as caller:
        caller.request("GET", "/slow?seconds=6")
        wait_until((tmp_path / "begun").exists, 5, "it has begun")
        server.kill()
        assert caller.getresponse().read(), "longer than the worker needs to notice"
        wait_until(lambda: not is_running(worker), 6, "the worker has ended")


def test_a_request_that_is_sent_while_the_process_ends_is_answered(tmp_path: Path) -> None:
    with small_server(tmp_path) as (server, port, worker), kept_connection(port) as caller:
        assert fetch_pid(caller) == worker
        server.terminate()
        time.sleep(0.3)  # the signal has come
        assert fetch_pid(caller) == worker
        caller.close()
        wait_until(lambda: not is_running(worker), 6, "the worker has ended")


def test_idle_callers_do_not_delay_the_end(tmp_path: Path) -> None:
    with small_server(tmp_path) as (server, port, worker), kept_connection(port) as caller:
        assert fetch_pid(caller) == worker
        server.terminate()
        wait_until(lambda: not is_running(worker), 6, "the worker has ended")
    assert (tmp_path / "stderr").read_text() == ""


def test_a_signal_that_does_not_interrupt_the_loop_ends_the_worker_at_once(tmp_path: Path) -> None:
    """One that comes just before the loop waits for events does not; here it comes to another thread."""
    with small_server(tmp_path, NOTIFY_EVERY_S="60") as (server, port, worker):
        fetch(f"http://127.0.0.1:{port}/end-between-two-heartbeats", time.monotonic() + 5)
        wait_until(lambda: not is_running(worker), 20, "the worker has ended")
        server.terminate()


def test_ctrl_c_twice_ends_it_without_a_traceback(tmp_path: Path) -> None:
    with small_server(tmp_path) as (server, port, worker), kept_connection(port) as caller:
        caller.request("GET", "/slow")
        wait_until((tmp_path / "begun").exists, 5, "it has begun")
        for pid in (worker, server.pid, worker):  # a terminal sends it to all, and the master sends it on
            os.kill(pid, signal.SIGINT)
        wait_until(lambda: not is_running(worker), 6, "the worker has ended")
        server.wait(5)
    assert (tmp_path / "stderr").read_text() == ""


def test_callers_that_keep_their_connections_keep_no_one_out(tmp_path: Path) -> None:
    with small_server(tmp_path, "--worker-connections", "4") as (_, port, worker), ExitStack() as stack:
        callers = [stack.enter_context(kept_connection(port)) for _ in range(8)]
        for caller in callers:
            assert fetch_pid(caller) == worker


def test_replies_of_different_seconds_have_different_dates(tmp_path: Path) -> None:
    with small_server(tmp_path) as (_, port, _), kept_connection(port) as caller:

        def fetch_date_s() -> float:
            caller.request("GET", "/process")
            response = caller.getresponse()
            response.read()
            return parsedate_to_datetime(response.headers["Date"]).timestamp()

        before_s, first_s = time.time(), fetch_date_s()
        assert before_s - 1 < first_s <= time.time()
        wait_until(lambda: fetch_date_s() > first_s, 5, "the next second has another date")
        assert before_s < fetch_date_s() <= time.time()


def test_a_request_with_a_broken_body_has_one_reply(tmp_path: Path) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"
    with small_server(tmp_path) as (_, port, _), socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
        caller.sendall(head)
        received = b"".join(iter(lambda: caller.recv(65_536), b""))
    assert received.count(b"HTTP/1.1 ") == 1


def test_the_master_loads_the_application_for_all_and_each_process_starts_its_own_threads(tmp_path: Path) -> None:
    with small_server(tmp_path) as (server, port, worker):
        memory = json.loads(fetch(f"http://127.0.0.1:{port}/memory", time.monotonic() + 20))
    assert (memory["loaded"], memory["started"]) == (server.pid, [worker])
    assert memory["frozen"] > 10_000  # objects, which a collection in a worker neither looks at nor copies


@contextmanager
def kept_connection(port: int) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as caller:
        caller.connect()
        yield caller


def fetch_pid(caller: http.client.HTTPConnection) -> int | None:
    """Return the process id of the worker that replied; None if there is no reply any more."""
    try:
        caller.request("GET", "/process")
        return int(json.loads(caller.getresponse().read())["pid"])
    except (OSError, http.client.HTTPException):
        return None


def test_wrong_settings_are_reported_together_without_a_traceback() -> None:
    env = environ(PORT="many", BUCKET_API_THREADS="0")
    process = subprocess.run(RUN, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert (process.returncode, process.stdout) == (os.EX_CONFIG, "")
    assert [line.split(":")[1].strip() for line in process.stderr.splitlines()] == ["BUCKET_API_THREADS", "PORT"]
