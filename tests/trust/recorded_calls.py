"""Sends requests and commands to a stack, and keeps each reply for the scan; a new key is cut out of its reply."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Final

import requests

from tests.stack import Stack
from tests.trust.secret_scan import SecretScan

_READ: Final = (
    "/health", "/ready", "/keys", "/me", "/logs", "/dead-letters", "/executions",
    "/executions?fields=result,metadata,error", "/executions/changes", "/agents", "/agents/keeper",
    "/baskets", "/consumers", "/integrations",
)  # fmt: skip
WRONG_PATHS: Final = ("/keys", "/executions", "/baskets", "/agents", "/consumers", "/nowhere")
"""Where a key or a token may be sent by mistake, as an id."""
_METRICS_READS: Final = 6
"""Chance decides which process of the API replies; each shows the metrics of all."""
_AUDIT_PAGE: Final = 1_000


class RecordedCalls:
    """The calls of one run, as an admin unless their headers say otherwise."""

    def __init__(self, stack: Stack, scan: SecretScan, admin: str) -> None:
        self._stack, self._scan, self._admin = stack, scan, admin
        self._replies: list[tuple[str, bytes]] = []
        self.statuses: set[int] = set()
        self.actions: set[str] = set()
        """The actions of all audit events that were read."""

    def call(
        self, method: str, path: str, body: Any = None, *, shows: str = "", raw: bytes | None = None, **headers: str
    ) -> Any:
        """Send a request and return its JSON; ``shows`` is the name of a key it may show, ``raw`` a body of its own."""
        headers = {"Authorization": f"Bearer {self._admin}"} | headers
        url = f"{self._stack.url}{path}"
        response = requests.request(method, url, json=body, data=raw, headers=headers, timeout=15)
        parsed = response.json() if "json" in response.headers.get("content-type", "") else None
        content = response.content
        if shows and response.status_code == requests.codes.created:
            self._scan.add_key(shows, parsed["key"])
            content = content.replace(parsed["key"].encode(), b"")
        self.statuses.add(response.status_code)
        place = f"reply {method} {path[:20]} {response.status_code}"
        self._replies.append((place, content + repr(response.headers).encode()))
        return parsed

    def command(self, *arguments: str, shows: bool = False) -> str:
        """Run a command of ``bucketd`` and return what it prints; ``shows``: a new key, so this is not searched."""
        process = subprocess.run(
            [sys.executable, "-c", "from compose.cli import main; main()", *arguments],
            env=self._stack.environ, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        name = " ".join(arguments[:2])
        self._replies.append((f"command bucketd {name} (stderr)", process.stderr.encode()))
        if not shows:
            self._replies.append((f"command bucketd {name}", process.stdout.encode()))
        return process.stdout

    def read_everything(self) -> None:
        """Read what shows keys, runs, metrics and the audit, page by page, and export the audit."""
        for path in (*_READ, *["/metrics"] * _METRICS_READS):
            self.call("GET", path)
        since = ""
        while events := (page := self.call("GET", f"/audit?limit={_AUDIT_PAGE}{since}"))["events"]:
            self.actions |= {event["action"] for event in events}
            since = f"&since={page['next_since']}"
        self.command("audit", "export")

    def search(self) -> None:
        """Search all replies and outputs; what was written elsewhere is there for the scan."""
        for place, content in self._replies:
            self._scan.search(place, content)
