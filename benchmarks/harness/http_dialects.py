"""Says how each side is spoken to over HTTP, and what a right answer is; the work asked for is the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.queue.message import QUEUES, list_keys

TRANSACTIONS: Final = [
    {"id": 1, "amount": 1000, "description": "Salary", "type": "income"},
    {"id": 2, "amount": -200.25, "description": "Groceries"},
    {"id": 3, "amount": 99.75, "description": "Power", "type": "expense"},
]
RIGHT_RESULT: Final = {"recommendations": ["Increase savings"]}
_ID: Final = re.compile(rb'"(?:execution_)?id": ?"([^"]+)"')


@dataclass(frozen=True, slots=True)
class HttpDialect:
    """How one side is spoken to, and where it keeps its runs and its messages."""

    name: str
    submit_path: str
    submit_body: Mapping[str, Any]
    poll_path: str
    done_marker: bytes
    collection: str
    queues: tuple[str, ...]

    def submit(self) -> bytes:
        """Answer the bytes of a submit."""
        body = json.dumps(self.submit_body)
        return (
            f"POST {self.submit_path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def poll(self, run_id: str, etag: str | None = None) -> bytes:
        """Answer the bytes of a poll; with ``etag``, of one that knows that revision."""
        known = "" if etag is None else f"If-None-Match: {etag}\r\n"
        return f"GET {self.poll_path}{run_id} HTTP/1.1\r\nHost: bench\r\n{known}\r\n".encode()

    def run_id_of(self, body: bytes) -> str | None:
        """Answer the run's id in the answer to a submit."""
        found = _ID.search(body)
        return None if found is None else found[1].decode()

    def is_done(self, body: bytes) -> bool:
        """Answer whether a poll's answer says that the run is over."""
        return self.done_marker in body

    def is_right(self, body: bytes) -> bool:
        """Answer whether a poll's answer shows the run completed, with the result that its input must lead to."""
        shown = json.loads(body)
        return bool(shown["status"] == "completed" and shown["result"] == RIGHT_RESULT)


REFERENCE: Final = HttpDialect(
    name="reference",
    submit_path="/run",
    submit_body={"input_data": {"transactions": TRANSACTIONS}},
    poll_path="/run/",
    done_marker=b'"status":"completed"',
    collection="runs",
    queues=("celery",),
)
BUCKET: Final = HttpDialect(
    name="Bucket",
    submit_path="/run-basket",
    submit_body={"basket_name": "chained_test", "input_data": {"transactions": TRANSACTIONS}},
    poll_path="/execution-logs/",
    done_marker=b'"done":true',
    collection="executions",
    queues=tuple(name for queue in QUEUES for name in list_keys(queue)),
)
