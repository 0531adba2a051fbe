"""The HTTP dialect of each system: its requests, and what a right response is; the requested work is the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.queue.message import list_keys

TRANSACTIONS: Final = [
    {"id": 1, "amount": 1000, "description": "Salary", "type": "income"},
    {"id": 2, "amount": -200.25, "description": "Groceries"},
    {"id": 3, "amount": 99.75, "description": "Power", "type": "expense"},
]
EXPECTED_RESULT: Final = {"recommendations": ["Increase savings"]}
_ID: Final = re.compile(rb'"(?:execution_)?id": ?"([^"]+)"')


@dataclass(frozen=True, slots=True)
class HttpDialect:
    """The requests of one system, and the names of its collection of runs and its queues."""

    name: str
    submit_path: str
    submit_body: Mapping[str, Any]
    poll_path: str
    done_marker: bytes
    collection: str
    queues: tuple[str, ...]
    holds_submits: bool

    def submit(self, wait_s: int | None = None) -> bytes:
        """Build the bytes of a submit; with ``wait_s``, of a held one (``Prefer: wait``)."""
        body = json.dumps(self.submit_body)
        preference = "" if wait_s is None else f"Prefer: wait={wait_s}\r\n"
        return (
            f"POST {self.submit_path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{preference}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def poll(self, run_id: str, etag: str | None = None) -> bytes:
        """Build the bytes of a poll; with ``etag``, of a conditional one (``If-None-Match``)."""
        condition = "" if etag is None else f"If-None-Match: {etag}\r\n"
        return f"GET {self.poll_path}{run_id} HTTP/1.1\r\nHost: bench\r\n{condition}\r\n".encode()

    def run_id_of(self, body: bytes) -> str | None:
        """Return the run's id from the response to a submit; None if there is none."""
        match = _ID.search(body)
        return None if match is None else match[1].decode()

    def is_done(self, body: bytes) -> bool:
        """Return whether the response to a poll says that the run is done."""
        return self.done_marker in body

    def has_expected_result(self, body: bytes) -> bool:
        """Return whether a view shows a completed run with the right result."""
        view = json.loads(body)
        return bool(view.get("status") == "completed" and view.get("result") == EXPECTED_RESULT)


REFERENCE: Final = HttpDialect(
    name="reference",
    submit_path="/run",
    submit_body={"input_data": {"transactions": TRANSACTIONS}},
    poll_path="/run/",
    done_marker=b'"status":"completed"',
    collection="runs",
    queues=("celery",),
    holds_submits=False,
)
BUCKET: Final = HttpDialect(
    name="Bucket",
    submit_path="/run-basket",
    submit_body={"basket_name": "chained_test", "input_data": {"transactions": TRANSACTIONS}},
    poll_path="/execution-logs/",
    done_marker=b'"done":true',
    collection="executions",
    queues=tuple(name for queue in QUEUE_NAMES for name in list_keys(queue)),
    holds_submits=True,
)
