"""Speaks to a real stack as an integrator does: plain requests, a new connection for each, every wait bounded."""

from __future__ import annotations

import http.client
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.stack import Stack

AGENTS = Path(__file__).parents[1] / "agents"
INCOME = {"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]}
DONE_WITHIN_S = 20.0


class Caller:
    """An integrator of one stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """Send one request and answer what came; nothing is followed or repeated."""
        return requests.request(method, self.stack.url + path, timeout=10, allow_redirects=False, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        """GET ``path``."""
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        """POST ``body`` as JSON; ``Idempotency_Key="a"`` is a header."""
        return self.ask(
            "POST", path, json=body, headers={name.replace("_", "-"): told for name, told in headers.items()}
        )

    def post_raw(self, body: Any, path: str = "/run-basket", **headers: str) -> requests.Response:
        """POST bytes, or an iterable of them in chunks."""
        return self.ask("POST", path, data=body, headers={"Content-Type": "application/json"} | headers)

    def as_is(self, target: str, **headers: str) -> requests.Response:
        """GET ``target`` and send ``headers`` exactly as they are written; requests would tidy them up."""
        parts = urlsplit(self.stack.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        with closing(connection):
            connection.putrequest("GET", target, skip_accept_encoding=True)
            for name, told in headers.items():
                connection.putheader(name.replace("_", "-"), told.encode("latin-1"))
            connection.endheaders()
            came = connection.getresponse()
            answer = requests.Response()
            answer.status_code, answer._content = came.status, came.read()
            answer.headers.update(came.headers)
        return answer

    def run(self, basket: str = "working_test", **more: Any) -> str:
        """Submit a basket and answer the execution's id."""
        return self._accepted(self.post("/run-basket", {"basket_name": basket} | more))

    def run_agent(self, agent: str, **given: Any) -> str:
        """Submit one agent with its input and answer the execution's id."""
        return self._accepted(self.post("/run-agent", {"agent_name": agent, "input_data": given}))

    def poll(self, execution_id: str, **query: Any) -> dict[str, Any]:
        """Poll once."""
        answer = self.get(f"/execution-logs/{execution_id}", params=query)
        assert answer.status_code == 200, answer.text
        polled: dict[str, Any] = answer.json()
        return polled

    def finished(self, execution_id: str) -> dict[str, Any]:
        """Poll until the run is done and answer the last poll."""
        due_by = time.monotonic() + DONE_WITHIN_S
        while not (polled := self.poll(execution_id))["done"]:
            assert time.monotonic() < due_by, f"not done within {DONE_WITHIN_S:g} s: {polled}"
            time.sleep(0.02)
        return polled

    def stored(self) -> dict[str, int]:
        """How many documents each collection holds that a request could add to."""
        database = self.stack.mongo()
        return {name: database[name].count_documents({}) for name in ("executions", "baskets", "outputs")}

    @staticmethod
    def _accepted(answer: requests.Response) -> str:
        assert answer.status_code == 202, answer.text
        return str(answer.json()["execution_id"])
