"""What an operator asks a stack: health, workers, statistics, and how to run a pool of workers for some queues."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import requests

from tests.stack import SecondProcess, Stack
from tests.waiting import wait_until

MANY: int = 12
"""Chance decides which process of the API replies: so many requests reach each of them, most probably."""


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of a stack, who needs no key."""

    stack: Stack

    def get(self, path: str) -> Any:
        """Return the body of a GET that succeeds."""
        reply = requests.get(self.stack.url + path, timeout=5)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def part(self, name: str) -> dict[str, str]:
        """Return one part of the health."""
        found: dict[str, str] = self.get("/health")["parts"][name]
        return found

    def wait_for_part(self, name: str, status: str, within_s: float = 20) -> str:
        """Wait until each process says so of a part of the health; return its sentence."""
        wait_until(
            lambda: all(self.part(name)["status"] == status for _ in range(MANY)), within_s, f"{name} is {status}"
        )
        if status != "healthy":
            wait_until(lambda: name in self.parts_down(), 20, f"the dashboard says so of {name}")
        return self.part(name)["detail"]

    def parts_down(self) -> set[str]:
        """Return the parts of which the overview of the dashboard says that they are not well."""
        # Until a frozen store is known to be away, each of the page's reads waits for it.
        page = requests.get(f"{self.stack.url}/", timeout=30)
        assert page.status_code == 200, page.text
        return set(re.findall(r'<li data-key="(\w+)" class="down">', page.text))

    def wait_until_healthy(self, within_s: float = 20) -> None:
        """Wait until every part is healthy, in each process."""
        wait_until(
            lambda: all(self.get("/health")["status"] == "healthy" for _ in range(MANY)), within_s, "all is well"
        )
        assert self.parts_down() == set()

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers."""
        found: list[dict[str, Any]] = self.get("/workers")["workers"]
        return found

    def queue(self, name: str = "default", query: str = "") -> dict[str, Any]:
        """Return the figures of a queue."""
        found: dict[str, Any] = self.get(f"/executions/stats{query}")["queues"][name]
        return found

    @contextmanager
    def pool(self, queues: str, **settings: str) -> Iterator[SecondProcess]:
        """Run a worker of its own for some queues while the block runs."""
        plan = self.stack.plan("worker", **settings)
        worker = SecondProcess(
            replace(plan, argv=(*plan.argv, "--queues", queues)), self.stack.root, self.stack.group_reaper
        )
        worker.start(lambda: self.stack.has_presence(worker.pid))
        try:
            yield worker
        finally:
            worker.kill()
