"""Submits the runs until each is accepted, and polls them to their end: what a patient integrator would see."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.faults.chaos.workload import Planned

POLLERS = 3


@dataclass(slots=True)
class Seen:
    """What pollers have seen of one accepted run."""

    planned: Planned
    rev: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    went_back: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """True once a poll said so."""
        return bool(self.last.get("done"))

    def note(self, poll: dict[str, Any]) -> None:
        """Take a poll, and whatever in it goes back behind an earlier one."""
        if poll["rev"] < self.rev:
            self.went_back.append(f"rev {self.rev} -> {poll['rev']}")
        if self.done and not poll["done"]:
            self.went_back.append("done -> not done")
        if self.done and poll["status"] != self.last["status"]:
            self.went_back.append(f"{self.last['status']} -> {poll['status']}")
        self.rev, self.last = poll["rev"], poll


class Callers:
    """One that submits and some that poll, each in a thread; 503 and cut connections are tried again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.seen: dict[str, Seen] = {}
        self.statuses: dict[int, int] = {}
        self._open: queue.Queue[str] = queue.Queue()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.is_submitted = threading.Event()

    def start(self, plans: Sequence[Planned], seconds: float) -> None:
        """Begin to submit ``plans``, evenly over ``seconds``, and to poll what was accepted."""
        threading.Thread(target=self._submit_all, args=(plans, seconds), daemon=True).start()
        for _ in range(POLLERS):
            threading.Thread(target=self._poll_all, daemon=True).start()

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()

    @property
    def all_done(self) -> bool:
        """True once every run was accepted and every one is done."""
        return self.is_submitted.is_set() and all(seen.done for seen in list(self.seen.values()))

    def poll_again(self) -> None:
        """Poll each run once more, after all is over."""
        with requests.Session() as session:
            for execution_id in self.seen:
                self._poll(session, execution_id)

    def _submit_all(self, plans: Sequence[Planned], seconds: float) -> None:
        began = time.monotonic()
        with requests.Session() as session:
            for number, planned in enumerate(plans):
                due = began + seconds * number / len(plans)
                time.sleep(max(due - time.monotonic(), 0))
                execution_id = self._submit(session, planned)
                self.seen[execution_id] = Seen(planned)
                self._open.put(execution_id)
        self.is_submitted.set()

    def _submit(self, session: requests.Session, planned: Planned) -> str:
        while True:
            answer = self._ask(
                session, "POST", "/run-basket", json=planned.body, headers={"Idempotency-Key": planned.key}
            )
            if answer is not None and answer.status_code == 202:
                return str(answer.json()["execution_id"])
            time.sleep(0.3)

    def _poll_all(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                try:
                    execution_id = self._open.get(timeout=0.2)
                except queue.Empty:
                    continue
                self._poll(session, execution_id)
                if not self.seen[execution_id].done:
                    self._open.put(execution_id)
                time.sleep(0.01)

    def _poll(self, session: requests.Session, execution_id: str) -> None:
        answer = self._ask(session, "GET", f"/execution-logs/{execution_id}")
        if answer is not None and answer.status_code == 200:
            self.seen[execution_id].note(answer.json())

    def _ask(self, session: requests.Session, method: str, path: str, **more: Any) -> requests.Response | None:
        try:
            answer = session.request(method, self._url + path, timeout=10, **more)
        except requests.RequestException:
            status, answer = 0, None
        else:
            status = answer.status_code
        with self._lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
        return answer
