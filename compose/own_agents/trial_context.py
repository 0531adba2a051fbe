"""The context of an agent that runs without a stack: it reports on stderr, and keeps its checkpoints in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from shared.domain.definitions.agent_spec import AgentSpec
from shared.errors import SpecError
from shared.ids import new_execution_id, new_request_id
from worker.agent_settings import missing_settings, read_settings
from worker.context import AgentContext
from worker.steps.checkpoints import checkpoint_to_json
from worker.testing.in_memory import InMemoryCheckpoints, InMemoryLedger

_LEVEL_WIDTH: Final = 7


class StderrReporter:
    """A Reporter that prints log lines and progress on stderr, for a person."""

    def line(self, level: str, message: str, data_json: bytes) -> None:
        """Print a log line."""
        data = orjson.loads(data_json)
        fields = " ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in data.items())
        _print(f"{level:<{_LEVEL_WIDTH}} {message} {fields}".rstrip())

    def progress(self, percent: int | None, message: str | None) -> None:
        """Print the progress."""
        _print(f"{'' if percent is None else percent:>3} % {message or ''}".rstrip())


class FileCheckpoints:
    """Checkpoints in a file, so that the next attempt goes on from there; each replaces the one before."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def save(self, state: dict[str, Any]) -> None:
        """Store a checkpoint; raises ValueError if it breaks the rules of a worker's."""
        new = self._file.with_name(f"{self._file.name}.new")
        new.write_bytes(checkpoint_to_json(state))
        new.replace(self._file)

    def latest(self) -> dict[str, Any] | None:
        """Return the newest checkpoint; None if there is no file. Raises ValueError if the file is none."""
        try:
            return dict(orjson.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return None


def make_context(
    spec: AgentSpec, timeout_s: float, settings: Mapping[str, str], state_file: str | None
) -> AgentContext:
    """Return the context of one attempt; raises SpecError for a missing or unknown setting."""
    if unknown := sorted(settings.keys() - {setting.name for setting in spec.settings}):
        raise SpecError(f"the spec's settings do not name {', '.join(unknown)}")
    values = read_settings(spec.settings, {**os.environ, **settings})
    if missing := missing_settings(spec.settings, values):
        raise SpecError(f"the setting {', '.join(missing)} is missing; set it in the environment, or by --setting")
    now = datetime.now(UTC)
    execution_id = new_execution_id(now)
    return AgentContext(
        execution_id=execution_id,
        step=spec.name,
        attempt=1,
        idempotency_key=f"{execution_id}:{spec.name}",
        request_id=new_request_id(),
        deadline=now + timedelta(seconds=timeout_s),
        ledger=InMemoryLedger(),
        reporter=StderrReporter(),
        checkpoints=InMemoryCheckpoints() if state_file is None else FileCheckpoints(Path(state_file)),
        settings=values,
    )


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
