"""What a context uses, in memory: a reporter that records, a ledger, and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from worker.steps.checkpoints import checkpoint_to_json


class RecordingReporter:
    """A Reporter that keeps its log lines and its progress."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, bytes]] = []
        """Each ``(level, message, data as JSON)``."""
        self.steps: list[tuple[int | None, str | None]] = []
        """Each ``(percent, message)``."""

    def line(self, level: str, message: str, data_json: bytes) -> None:
        """Take a log line."""
        self.lines.append((level, message, data_json))

    def progress(self, percent: int | None, message: str | None) -> None:
        """Take the progress."""
        self.steps.append((percent, message))


class InMemoryLedger:
    """A Ledger in memory; ``entries`` has its transactions by key."""

    def __init__(self) -> None:
        self.entries: dict[str, Mapping[str, Any]] = {}

    def add(self, key: str, transaction: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store a transaction under ``key``, or return what was stored first."""
        return self.entries.setdefault(key, transaction)

    def transactions(self, account: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Return the newest 1,000, of one account or of all, oldest first."""
        return list(self.all_transactions(account))[-1000:]

    def all_transactions(self, account: str | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield every transaction, of one account or of all."""
        return (entry for entry in self.entries.values() if account in (None, entry.get("account") or ""))

    def accounts(self, limit: int) -> Sequence[str]:
        """Return the names of the first accounts in the order of the alphabet."""
        return sorted({entry.get("account") or "" for entry in self.entries.values()})[:limit]


class InMemoryCheckpoints:
    """Checkpoints in memory, refused by the same rules as a worker's: an object of JSON, at most 4 MiB."""

    def __init__(self, latest: Mapping[str, Any] | None = None) -> None:
        self._latest = None if latest is None else checkpoint_to_json(dict(latest))

    def save(self, state: dict[str, Any]) -> None:
        """Store a checkpoint; raises ValueError if it breaks the rules."""
        self._latest = checkpoint_to_json(state)

    def latest(self) -> dict[str, Any] | None:
        """Return the newest checkpoint; None if there is none."""
        return None if self._latest is None else orjson.loads(self._latest)
