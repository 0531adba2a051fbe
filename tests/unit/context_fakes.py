"""Fakes of what an agent's context uses, in memory, so that a test can check what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson


class RecordingReporter:
    """A fake Reporter that keeps its log lines and progress."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, bytes]] = []
        self.steps: list[tuple[int | None, str | None]] = []

    def line(self, level: str, message: str, data_json: bytes) -> None:
        self.lines.append((level, message, data_json))

    def progress(self, percent: int | None, message: str | None) -> None:
        self.steps.append((percent, message))


class InMemoryLedger:
    """A fake Ledger in memory."""

    def __init__(self) -> None:
        self.entries: dict[str, Mapping[str, Any]] = {}

    def add(self, key: str, transaction: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.entries.setdefault(key, transaction)

    def transactions(self, account: str | None = None) -> Sequence[Mapping[str, Any]]:
        return list(self.all_transactions(account))[-1000:]

    def all_transactions(self, account: str | None = None) -> Iterator[Mapping[str, Any]]:
        return (entry for entry in self.entries.values() if account in (None, entry.get("account") or ""))

    def accounts(self, limit: int) -> Sequence[str]:
        return sorted({entry.get("account") or "" for entry in self.entries.values()})[:limit]


class InMemoryCheckpoints:
    """Fake Checkpoints in memory."""

    def __init__(self) -> None:
        self._latest: bytes | None = None

    def save(self, state: dict[str, Any]) -> None:
        self._latest = orjson.dumps(state)

    def latest(self) -> dict[str, Any] | None:
        return None if self._latest is None else orjson.loads(self._latest)
