"""Chaos callers: submit each run until it is accepted, and poll it to its end, as a patient integrator does."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.faults.chaos.workload import PlannedRun

POLLERS = 3


@dataclass(slots=True)
class PollHistory:
    """What the pollers have seen of one accepted run: the last view, and any step back."""

    planned: PlannedRun
    rev: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    went_back: list[tuple[float, str]] = field(default_factory=list)
    """Time (monotonic seconds) and kind of each step back."""

    @property
    def done(self) -> bool:
        """Whether a poll has shown the run as done."""
        return bool(self.last.get("done"))

    def record(self, poll: dict[str, Any]) -> None:
        """Record a poll, and anything in it that is older than an earlier poll."""
        steps_back = {
            f"rev {self.rev} -> {poll['rev']}": poll["rev"] < self.rev,
            "done -> not done": self.done and not poll["done"],
            f"{self.last.get('status')} -> {poll['status']}": self.done and poll["status"] != self.last["status"],
        }
        self.went_back += [(time.monotonic(), kind) for kind, happened in steps_back.items() if happened]
        self.rev, self.last = poll["rev"], poll


class Callers:
    """One submitter and some pollers, each in a thread; 503 and broken connections are retried."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.histories: dict[str, PollHistory] = {}
        self.statuses: dict[int, int] = {}
        self._open: queue.Queue[str] = queue.Queue()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.is_submitted = threading.Event()

    def start(self, plans: Sequence[PlannedRun], seconds: float) -> None:
        """Begin to submit ``plans``, evenly over ``seconds``, and to poll what was accepted."""
        threading.Thread(target=self._submit_all, args=(plans, seconds), daemon=True).start()
        for _ in range(POLLERS):
            threading.Thread(target=self._poll_all, daemon=True).start()

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()

    @property
    def all_done(self) -> bool:
        """Whether every run was accepted and is done."""
        return self.is_submitted.is_set() and all(history.done for history in list(self.histories.values()))

    def poll_again(self) -> None:
        """Poll each run once more, after all are done."""
        with requests.Session() as session:
            for execution_id in self.histories:
                self._poll(session, execution_id)

    def _submit_all(self, plans: Sequence[PlannedRun], seconds: float) -> None:
        started_at = time.monotonic()
        with requests.Session() as session:
            for number, planned in enumerate(plans):
                due_at = started_at + seconds * number / len(plans)
                time.sleep(max(due_at - time.monotonic(), 0))
                execution_id = self._submit(session, planned)
                self.histories[execution_id] = PollHistory(planned)
                self._open.put(execution_id)
        self.is_submitted.set()

    def _submit(self, session: requests.Session, planned: PlannedRun) -> str:
        while True:
            response = self._request(
                session, "POST", "/run-basket", json=planned.body, headers={"Idempotency-Key": planned.key}
            )
            if response is not None and response.status_code == 202:
                return str(response.json()["execution_id"])
            time.sleep(0.3)

    def _poll_all(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                try:
                    execution_id = self._open.get(timeout=0.2)
                except queue.Empty:
                    continue
                self._poll(session, execution_id)
                if not self.histories[execution_id].done:
                    self._open.put(execution_id)
                time.sleep(0.01)

    def _poll(self, session: requests.Session, execution_id: str) -> None:
        response = self._request(session, "GET", f"/execution-logs/{execution_id}")
        if response is not None and response.status_code == 200:
            self.histories[execution_id].record(response.json())

    def _request(self, session: requests.Session, method: str, path: str, **options: Any) -> requests.Response | None:
        try:
            response = session.request(method, self._url + path, timeout=10, **options)
        except requests.RequestException:
            status, response = 0, None
        else:
            status = response.status_code
        with self._lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
        return response
