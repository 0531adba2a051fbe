"""Callers that stop in the middle of a request get 408 and keep no thread; the deadlines are short here."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from compose.embedded import api_port

# As api/wsgi.py, with the deadlines of a test.
APPLICATION = """
from api import timed_socket
timed_socket.HEADERS_TIMEOUT_S, timed_socket.REQUEST_TIMEOUT_S = 1, 2
from api.wsgi import app
"""
THREADS = 2
HEAD = b"POST /run-basket HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Yield the address of one API process with two threads, whose stores are away: refusals are quick."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(APPLICATION)
    port = api_port.pick_port("127.0.0.1", 0)
    env = {name: value for name, value in os.environ.items() if not name.startswith("BUCKET_")} | {
        "PORT": str(port), "PYTHONPATH": str(folder), "BUCKET_API_PROCESSES": "1", "BUCKET_API_THREADS": str(THREADS),
        "REDIS_URL": f"unix://{folder}/none", "MONGODB_URL": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100",
    }  # fmt: skip
    command = [
        sys.executable,
        str(Path(sysconfig.get_path("scripts"), "gunicorn")),
        "-c",
        "python:api.gunicorn",
        "slow:app",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as server:
        try:
            due_by = time.monotonic() + 20
            while time.monotonic() < due_by and not is_up(port):
                time.sleep(0.05)
            yield "127.0.0.1", port
        finally:
            server.send_signal(signal.SIGQUIT)
    assert "Traceback" not in (folder / "log").read_text()


def is_up(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def reply_to(address: tuple[str, int], *pieces: bytes, pause_s: float = 0.0) -> tuple[int, str]:
    """Send the pieces with pauses, and return status and error code of the reply."""
    with socket.create_connection(address, timeout=10) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break  # it has replied and closed the connection
            time.sleep(pause_s)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    return int(head.split()[1]), json.loads(body)["error_code"]


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD,),
        (HEAD + b"Content-Length: 100\r\n\r\n", b'{"basket_name"'),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"64\r\n{"),
    ],
    ids=["headers", "body", "chunk"],
)
def test_a_caller_that_stops_gets_408(address: tuple[str, int], pieces: tuple[bytes, ...]) -> None:
    began = time.monotonic()
    assert reply_to(address, *pieces) == (408, "request_timeout")
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(("start", "drop"), [(HEAD, b"X-A: b\r\n"), (HEAD + b"Content-Length: 900\r\n\r\n", b"x")])
def test_a_caller_that_drips_gets_408_too(address: tuple[str, int], start: bytes, drop: bytes) -> None:
    """A byte now and then is not progress: the deadline is that of the whole."""
    assert reply_to(address, start, *[drop] * 12, pause_s=0.3) == (408, "request_timeout")


def test_a_caller_that_stops_in_a_request_that_it_began_with_the_one_before_gets_408_too(
    address: tuple[str, int],
) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /health HT")
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"408"]


def test_many_callers_that_stop_do_not_stop_the_others(address: tuple[str, int]) -> None:
    with ExitStack() as stack:
        for _ in range(4 * THREADS):
            connection = stack.enter_context(socket.create_connection(address, timeout=10))
            connection.sendall(HEAD)
        response = requests.get(f"http://{address[0]}:{address[1]}/health", timeout=60)
        assert response.status_code == 200


def test_the_next_request_of_a_connection_has_a_time_of_its_own(address: tuple[str, int]) -> None:
    with requests.Session() as session:
        for _ in range(2):
            assert session.get(f"http://{address[0]}:{address[1]}/health", timeout=5).status_code == 200
            time.sleep(1.2)  # longer than the headers may take: idle time is no part of a request
