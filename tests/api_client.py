"""Submits runs to a stack over HTTP and polls them, as a caller would; and what many callers at once were answered."""

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
# It is chance which process of the API answers: so many requests reach both of two, but for one case in 8 million.
EVERY_PROCESS: Final = 24


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request was answered, and after how long."""

    status: int
    body: dict[str, Any]
    headers: requests.structures.CaseInsensitiveDict[str]
    seconds: float

    @property
    def error_code(self) -> str | None:
        """The code of a problem."""
        code: str | None = self.body.get("error_code")
        return code

    @property
    def execution_id(self) -> str:
        """The id of an accepted run."""
        assert self.status == 202, f"not accepted: {self.status} {self.body}"
        return str(self.body["execution_id"])


class Runs:
    """One caller of a stack; ``file`` is where the agent ``counter`` leaves a line for each time it ran."""

    def __init__(self, stack: Stack, file: Path) -> None:
        self.stack = stack
        self.file = file

    def submit(self, *agents: str, key: str | None = None, run_after_s: float | None = None, **given: Any) -> Answer:
        """Submit a run of a chain of ``agents``, the counter alone where none is named."""
        body: dict[str, Any] = {
            "config": {"agents": list(agents or ("counter",)), "execution_strategy": "sequential"},
            "input_data": {"file": str(self.file), **given},
        } | ({} if run_after_s is None else {"run_after_s": run_after_s})
        headers = {} if key is None else {"Idempotency-Key": key}
        return asked(lambda: requests.post(f"{self.stack.url}/run-basket", json=body, headers=headers, timeout=10))

    def batch(self, times: int, key: str | None = None) -> Answer:
        """Submit so many runs of the counter in one request."""
        item = {"config": {"agents": ["counter"]}, "input_data": {"file": str(self.file)}}
        headers = {} if key is None else {"Idempotency-Key": key}
        url = f"{self.stack.url}/run-basket/batch"
        return asked(lambda: requests.post(url, json={"items": [item] * times}, headers=headers, timeout=10))

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a path."""
        return asked(lambda: requests.get(f"{self.stack.url}{path}", headers=headers, timeout=10))

    def poll(self, execution_id: str) -> Answer:
        """Poll one run."""
        return self.get(f"/execution-logs/{execution_id}")

    def done(self, execution_id: str, within_s: float = 20.0) -> dict[str, Any]:
        """Poll until a run is done; answer its last poll."""
        last: dict[str, Any] = {}

        def is_done() -> bool:
            nonlocal last
            answer = self.poll(execution_id)
            last = answer.body
            return answer.status == 200 and bool(last["done"])

        wait_until(is_done, within_s, f"{execution_id} is done")
        return last

    def all_done(self, ids: Iterable[str], within_s: float = 30.0) -> list[dict[str, Any]]:
        """Poll until all runs are done; answer their last polls."""
        due_by = time.monotonic() + within_s
        return [self.done(execution_id, max(due_by - time.monotonic(), 0.1)) for execution_id in ids]

    def counted(self) -> list[str]:
        """The lines that the counter left: ``execution_id:step:attempt``."""
        return self.file.read_text().splitlines() if self.file.exists() else []

    def counted_of(self, execution_id: str) -> list[str]:
        """The counter's lines of one run."""
        return [line for line in self.counted() if line.startswith(f"{execution_id}:")]

    def begun(self, execution_id: str, times: int = 1) -> None:
        """Wait until the counter has begun a run so many times."""
        wait_until(lambda: len(self.counted_of(execution_id)) >= times, 15, f"{execution_id} began {times} times")


def asked(request: Callable[[], requests.Response]) -> Answer:
    """Answer what ``request`` was answered."""
    began = time.monotonic()
    response = request()
    seconds = time.monotonic() - began
    body = response.json() if response.content else {}
    return Answer(response.status_code, body if isinstance(body, dict) else {"items": body}, response.headers, seconds)


def at_once(ask: Callable[[], Answer], times: int = 20) -> list[Answer]:
    """Answer what so many parallel callers were answered."""
    with ThreadPoolExecutor(times) as callers:
        return [future.result() for future in [callers.submit(ask) for _ in range(times)]]


def worst(answers: Iterable[Answer]) -> float:
    """The longest that any of them had to wait, in seconds."""
    return max(answer.seconds for answer in answers)
