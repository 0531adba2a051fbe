"""HTTP client of a stack for tests: submits runs and polls them, as a caller would; also many callers at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from tests.stack import Stack
from tests.waiting import wait_until

AGENTS: Final = Path(__file__).parent / "agents"
# Chance decides which process of the API replies: so many requests reach both of two, except in one case in 8 million.
EVERY_PROCESS: Final = 24


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The reply to one request, and the seconds it took."""

    status: int
    body: dict[str, Any]
    headers: requests.structures.CaseInsensitiveDict[str]
    seconds: float

    @property
    def error_code(self) -> str | None:
        """Return the error code of a problem; None if the reply is no problem."""
        code: str | None = self.body.get("error_code")
        return code

    @property
    def execution_id(self) -> str:
        """Return the id of an accepted run."""
        assert self.status == 202, f"not accepted: {self.status} {self.body}"
        return str(self.body["execution_id"])


class RunClient:
    """One caller of a stack; the agent ``counter`` appends a line to ``file`` each time it runs."""

    def __init__(self, stack: Stack, file: Path) -> None:
        self.stack = stack
        self.file = file

    def submit(
        self, *agents: str, key: str | None = None, run_after_s: float | None = None, **input_data: Any
    ) -> ApiResponse:
        """Submit a run of a chain of ``agents``, or of the counter alone if none is named."""
        body: dict[str, Any] = {
            "config": {"agents": list(agents or ("counter",)), "execution_strategy": "sequential"},
            "input_data": {"file": str(self.file), **input_data},
        } | ({} if run_after_s is None else {"run_after_s": run_after_s})
        headers = {} if key is None else {"Idempotency-Key": key}
        return send_timed(lambda: requests.post(f"{self.stack.url}/run-basket", json=body, headers=headers, timeout=10))

    def submit_until_accepted(self, key: str) -> list[ApiResponse]:
        """Submit one counter with ``key`` until it is accepted; return all replies: 503s, and the 202 at the end."""
        replies: list[ApiResponse] = []

        def is_accepted() -> bool:
            replies.append(self.submit(key=key))
            assert replies[-1].status in {202, 503}, replies[-1]
            return replies[-1].status == 202

        wait_until(is_accepted, 30, f"{key} is accepted")
        return replies

    def batch(self, times: int, key: str | None = None) -> ApiResponse:
        """Submit ``times`` runs of the counter in one request."""
        item = {"config": {"agents": ["counter"]}, "input_data": {"file": str(self.file)}}
        headers = {} if key is None else {"Idempotency-Key": key}
        url = f"{self.stack.url}/run-basket/batch"
        return send_timed(lambda: requests.post(url, json={"items": [item] * times}, headers=headers, timeout=10))

    def get(self, path: str, **headers: str) -> ApiResponse:
        """Send a GET request for a path."""
        return send_timed(lambda: requests.get(f"{self.stack.url}{path}", headers=headers, timeout=10))

    def poll(self, execution_id: str) -> ApiResponse:
        """Poll one run."""
        return self.get(f"/execution-logs/{execution_id}")

    def wait_done(self, execution_id: str, within_s: float = 20.0) -> dict[str, Any]:
        """Poll until a run is done; return its last poll."""
        last: dict[str, Any] = {}

        def is_done() -> bool:
            nonlocal last
            response = self.poll(execution_id)
            last = response.body
            return response.status == 200 and bool(last["done"])

        wait_until(is_done, within_s, f"{execution_id} is done")
        return last

    def wait_all_done(self, ids: Iterable[str], within_s: float = 30.0) -> list[dict[str, Any]]:
        """Poll until all runs are done; return their last polls."""
        due_by = time.monotonic() + within_s
        return [self.wait_done(execution_id, max(due_by - time.monotonic(), 0.1)) for execution_id in ids]

    def counter_lines(self) -> list[str]:
        """Return the lines that the counter wrote: ``execution_id:step:attempt``."""
        return self.file.read_text().splitlines() if self.file.exists() else []

    def counter_lines_of(self, execution_id: str) -> list[str]:
        """Return the counter's lines of one run."""
        return [line for line in self.counter_lines() if line.startswith(f"{execution_id}:")]

    def wait_begun(self, execution_id: str, times: int = 1) -> None:
        """Wait until the counter has begun a run ``times`` times."""
        wait_until(lambda: len(self.counter_lines_of(execution_id)) >= times, 15, f"{execution_id} began {times} times")


def send_timed(request: Callable[[], requests.Response]) -> ApiResponse:
    """Send ``request`` and return its reply with the seconds it took."""
    began = time.monotonic()
    response = request()
    seconds = time.monotonic() - began
    body = response.json() if response.content else {}
    return ApiResponse(
        response.status_code, body if isinstance(body, dict) else {"items": body}, response.headers, seconds
    )


def send_in_parallel(send: Callable[[], ApiResponse], times: int = 20) -> list[ApiResponse]:
    """Send the same request from ``times`` parallel callers; return all replies."""
    with ThreadPoolExecutor(times) as callers:
        return [future.result() for future in [callers.submit(send) for _ in range(times)]]


def longest_s(responses: Iterable[ApiResponse]) -> float:
    """Return the longest time that any of them took, in seconds."""
    return max(response.seconds for response in responses)
