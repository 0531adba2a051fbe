"""The context of an agent that runs without a stack: it reports on stderr, and keeps its checkpoints in a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from shared.domain.definitions.agent_spec import AgentSpec
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.errors import SpecError
from shared.ids import new_execution_id, new_request_id
from shared.live.providers.call_policy import CallPolicy
from shared.settings import Settings
from worker.agent_settings import missing_settings, read_settings
from worker.context import AgentContext
from worker.gateway.breaker_failover import BreakerFailover
from worker.gateway.gateway import Gateway
from worker.gateway.outbound import Outbound
from worker.gateway.step_facts import StepFacts
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
        raise SpecError(f"{', '.join(missing)} must be set, in the environment or by --setting")
    now = datetime.now(UTC)
    execution_id = new_execution_id(now)
    context = AgentContext(
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
    context.http = _gateway_of(context, spec.name, timeout_s)
    return context


def _gateway_of(context: AgentContext, agent: str, timeout_s: float) -> Gateway:
    """Return the gateway of a worker, with a breaker of its own: the hosts of BUCKET_OUTBOUND_HOSTS, all its rules."""
    outbound = Outbound(Settings.from_environ())
    # A clock that stands before all others: to this breaker Redis is always away, so that it is not asked.
    outbound.breaker = BreakerFailover("unix:///nowhere", CallPolicy(), now=lambda: -1.0)
    facts = StepFacts(agent, PUBLIC_INTEGRATOR, context.idempotency_key, context.request_id, settings=context.settings)
    ends_at = time.monotonic() + timeout_s
    return Gateway(outbound, facts, context.log, context.cancel, lambda: ends_at - time.monotonic())


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
