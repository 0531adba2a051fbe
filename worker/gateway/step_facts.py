"""What the gateway knows of the step that calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.telemetry.tracing.tracer import AttemptTrace


@dataclass(frozen=True, slots=True)
class StepFacts:
    """The step whose agent calls: who it is, and what goes out with its calls."""

    agent: str
    integrator: str
    idempotency_key: str
    request_id: str
    traceparent: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    trace: AttemptTrace | None = field(default=None, repr=False)
