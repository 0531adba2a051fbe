"""HTTP client of the acceptance tests: plain requests as an integrator sends them, each with its own connection."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from tests.stack import Stack

AGENTS = Path(__file__).parents[1] / "agents"
INCOME = {"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]}
FINISH_WITHIN_S: Final = 20.0
AVAILABLE_WITHIN_S: Final = 5.0
SENDS_MAX: Final = 4


class ApiClient:
    """A client of one stack, as an integrator would write it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send one request and return its response, without redirects.

        A machine that stands still for a second makes the API answer 503 `outcome_unknown`, as it must. The request is
        then sent again, as docs/errors.md asks; a test that wants this answer gets it, for its cause lasts.
        """
        for _ in range(SENDS_MAX):
            response = requests.request(method, self.stack.url + path, timeout=10, allow_redirects=False, **options)
            if response.status_code != 503 or response.json().get("error_code") != "outcome_unknown":
                break
        return response

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET ``path``."""
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        """POST ``body`` as JSON; ``Idempotency_Key="a"`` is a header."""
        return self.request(
            "POST", path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def post_raw(self, body: Any, path: str = "/run-basket", **headers: str) -> requests.Response:
        """POST bytes, or an iterable of them in chunks."""
        return self.request("POST", path, data=body, headers={"Content-Type": "application/json"} | headers)

    def get_raw(self, target: str, **headers: str) -> requests.Response:
        """GET ``target`` with ``headers`` exactly as written; the library requests would normalise them."""
        parts = urlsplit(self.stack.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        with closing(connection):
            connection.putrequest("GET", target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value.encode("latin-1"))
            connection.endheaders()
            reply = connection.getresponse()
            response = requests.Response()
            response.status_code, response._content = reply.status, reply.read()
            response.headers.update(reply.headers)
        return response

    def submit_basket(self, basket: str = "working_test", **fields: Any) -> str:
        """Submit a basket and return the id of the execution."""
        return self._accepted_id("/run-basket", {"basket_name": basket} | fields)

    def submit_agent(self, agent: str, **input_data: Any) -> str:
        """Submit one agent with its input and return the id of the execution."""
        return self._accepted_id("/run-agent", {"agent_name": agent, "input_data": input_data})

    def poll(self, execution_id: str, **query: Any) -> dict[str, Any]:
        """Poll once and return the view."""
        response = _once_available(lambda: self.get(f"/execution-logs/{execution_id}", params=query))
        assert response.status_code == 200, response.text
        view: dict[str, Any] = response.json()
        return view

    def wait_done(self, execution_id: str) -> dict[str, Any]:
        """Poll until the run is done and return the last view."""
        due_by = time.monotonic() + FINISH_WITHIN_S
        while not (view := self.poll(execution_id))["done"]:
            assert time.monotonic() < due_by, f"not done within {FINISH_WITHIN_S:g} s: {view}"
            time.sleep(0.02)
        return view

    def document_counts(self) -> dict[str, int]:
        """Return the number of documents of each collection to which a request could add some."""
        database = self.stack.mongo()
        return {name: database[name].count_documents({}) for name in ("executions", "baskets", "outputs")}

    def _accepted_id(self, path: str, body: Any) -> str:
        response = _once_available(lambda: self.post(path, body))
        assert response.status_code == 202, response.text
        return str(response.json()["execution_id"])


def _once_available(send: Callable[[], requests.Response]) -> requests.Response:
    """Send a request again while the answer is 503 `unavailable`, for a few seconds, as docs/errors.md asks.

    On a busy machine MongoDB may give no reply for most of a second. No other refusal is repeated.
    """
    due_by = time.monotonic() + AVAILABLE_WITHIN_S
    while _is_unavailable(response := send()) and time.monotonic() < due_by:
        time.sleep(0.1)
    return response


def _is_unavailable(response: requests.Response) -> bool:
    return response.status_code == 503 and response.json()["error_code"] == "unavailable"
