"""The walk of a submit stays short and straight, as docs/architecture.md lists it: traced on real servers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from flask.testing import FlaskClient

from api.app import create_app
from shared.bootstrap import bootstrap
from shared.settings import Settings
from tests.waiting import wait_until

MODULES_MAX = 33
RETURNS_MAX = 4
NOT_LISTED = {
    # values, constants, identifiers and clocks
    "shared.errors", "shared.ids", "shared.settings", "shared.clock", "shared.timestamps", "shared.fault_injection",
    "shared.domain.execution", "shared.domain.status", "shared.domain.definitions.basket",
    "shared.domain.lifecycle.decision", "shared.domain.lifecycle.timings", "shared.domain.lifecycle.log_events",
    "shared.live.duration_stats", "shared.live.qualified_id", "api.auth.basket_allow_list", "api.auth.current_caller",
    "api.hints.poll_schedule", "shared.store.server_clock", "shared.live.redis_monitor",
    # metrics and logs, and the wrapper of the driver's calls
    "shared.telemetry.request_metrics", "shared.telemetry.lenient_json", "shared.telemetry.logging_setup",
    "shared.telemetry.fleet_counters", "shared.telemetry.window_counters",
    "shared.store.database",
}  # fmt: skip
PROPERTIES = {"PollHints.retry_after_s", "retry_after_s"}  # to read a property of a value is no visit
DOCUMENT = Path(__file__).parents[4] / "docs" / "architecture.md"
BODY = {
    "basket_name": "working_test",
    "input_data": {"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]},
}


class Walk:
    """The visits to modules in their order; calls of one module into another, one after another, are one visit."""

    def __init__(self) -> None:
        self.visits: list[str] = []
        self.returns: list[str] = []
        self._frames: list[str] = []
        self._last_visit_from: dict[int, str] = {}

    def trace(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Note calls and returns; for :func:`sys.setprofile`."""
        module = frame.f_globals.get("__name__", "")
        if event not in {"call", "return"} or module.split(".")[0] not in {"api", "shared"} or module in NOT_LISTED:
            return
        if frame.f_code.co_qualname in PROPERTIES or frame.f_code.co_filename == "<string>":  # a dataclass's __init__
            return
        if event == "return":
            self._last_visit_from.pop(len(self._frames), None)
            self._frames = self._frames[:-1]
            return
        if not self._frames or self._frames[-1] != module:
            self._visit(module)
        self._frames.append(module)

    def _visit(self, module: str) -> None:
        depth = self._depth_of_caller()
        if self._last_visit_from.get(depth) != module:
            if module in self.visits:
                self.returns.append(module)
            self.visits.append(module)
        self._last_visit_from[depth] = module

    def _depth_of_caller(self) -> int:
        """Return at which depth the calling module was entered: its functions that call each other count as one."""
        depth = len(self._frames)
        while depth > 1 and self._frames[depth - 2] == self._frames[depth - 1]:
            depth -= 1
        return depth


@contextmanager
def client_of(redis_url: str, mongodb_url: str) -> Iterator[FlaskClient]:
    services = bootstrap(replace(Settings(), redis_url=redis_url, mongodb_url=mongodb_url), "api")
    app, start = create_app(services)
    start()
    with closing(services.database), closing(services.redis):
        yield app.test_client()


def listed() -> list[str]:
    """The modules that the document lists, in its order."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("## The walk of a submit")[2].partition("\n## ")[0]
    return [path.replace("/", ".") for path in re.findall(r"^\d+\. `([\w/]+)\.py`", section, re.MULTILINE)]


def test_the_walk_is_as_short_and_straight_as_the_document_says(redis_url: str, mongodb_url: str) -> None:
    with client_of(redis_url, mongodb_url) as client:
        wait_until(lambda: client.post("/run-basket", json=BODY).status_code == 202, 10, "runs are accepted")
        walk = Walk()
        body = b'{"basket_name": "working_test", "input_data": {"transactions": []}}'
        sys.setprofile(walk.trace)
        try:
            response = client.post("/run-basket", data=body, content_type="application/json")
        finally:
            sys.setprofile(None)
    assert response.status_code == 202
    assert list(dict.fromkeys(walk.visits)) == listed()
    assert len(set(walk.visits)) <= MODULES_MAX
    assert len(walk.returns) <= RETURNS_MAX, walk.returns
