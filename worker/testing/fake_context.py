"""``FakeContext``: the context of an agent without a stack, complete, and changed only in what a test names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import orjson

from shared.suggestions import closest_matches
from worker.context import AgentContext
from worker.testing.fake_http import FakeHttp
from worker.testing.in_memory import InMemoryCheckpoints, InMemoryLedger, RecordingReporter

EXECUTION_ID: Final = "1763700000_89ce24ad1b2c3d4e"
_ALLOWED_S: Final = 300
_NAMES: Final = tuple(field.name for field in fields(AgentContext) if field.init)


class FakeContext(AgentContext):
    """A context whose log lines, progress, checkpoints and ledger stay in memory; ``http`` is a FakeHttp."""

    def __init__(self, **differs: Any) -> None:
        """Take what differs, by the names of AgentContext; raises TypeError for any other name.

        ``settings`` and ``previous_state`` are objects, ``cancel`` a threading.Event, ``deadline`` an aware datetime.
        """
        for name in differs.keys() - set(_NAMES):
            matches = closest_matches(name, _NAMES)
            hint = f"did you mean {matches[0]}?" if matches else f"it has {', '.join(_NAMES)}"
            raise TypeError(f"a context has no {name}; {hint}")
        defaults: dict[str, Any] = {
            "execution_id": EXECUTION_ID,
            "step": "step",
            "attempt": 1,
            "request_id": "req-1",
            "deadline": datetime.now(UTC) + timedelta(seconds=_ALLOWED_S),
            "ledger": InMemoryLedger(),
            "reporter": RecordingReporter(),
            "checkpoints": InMemoryCheckpoints(),
            "http": FakeHttp(),
        }
        complete = defaults | differs
        complete.setdefault("idempotency_key", f"{complete['execution_id']}:{complete['step']}")
        super().__init__(**complete)

    @property
    def lines(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """The log lines so far, each ``(level, message, data)``."""
        reporter = cast("RecordingReporter", self.reporter)
        return [(level, message, orjson.loads(data_json)) for level, message, data_json in reporter.lines]

    @property
    def progress_reports(self) -> list[tuple[int | None, str | None]]:
        """The progress so far, each ``(percent, message)``."""
        return cast("RecordingReporter", self.reporter).steps
