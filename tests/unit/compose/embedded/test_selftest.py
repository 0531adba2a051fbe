"""The first run of a stack: what it says if the API takes no run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from compose.embedded.selftest import run_selftest
from compose.operator_error import OperatorError


class Refusing(BaseHTTPRequestHandler):
    """An API that refuses each run with the status in its path; one that it takes is done at the second poll."""

    polls = 0

    def do_POST(self) -> None:
        status = int(self.path.split("/")[1])
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(status, {"detail": f"refused with {status}", "status_url": "/poll"})

    def do_GET(self) -> None:
        Refusing.polls += 1
        result = {"analysis": {"total": 1000, "positive": 1000, "negative": 0}}
        self._reply(429 if Refusing.polls == 1 else 200, {"done": True, "status": "completed", "result": result})

    def _reply(self, status: int, reply: dict[str, Any]) -> None:
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [403, 429])
def test_a_stack_whose_settings_refuse_the_run_starts_all_the_same(url: str, status: int) -> None:
    """By a quota that is used up, or where only approved integrations may submit."""
    sentence = run_selftest(f"{url}/{status}", Path("logs"), lambda: None, key="bkt_any")
    assert sentence == f"No self-test was made: refused with {status}."


def test_a_poll_that_a_limit_refuses_is_made_again(url: str) -> None:
    Refusing.polls = 0
    assert run_selftest(f"{url}/202", Path("logs"), lambda: None).startswith("A first run completed")
    assert Refusing.polls == 2


def test_any_other_error_stops_the_start(url: str) -> None:
    with pytest.raises(OperatorError, match="500"):
        run_selftest(f"{url}/500", Path("logs"), lambda: None)
