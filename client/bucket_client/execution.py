"""A run as the server shows it: attributes with the names that the JSON has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Self, TypedDict

from bucket_client.errors import ExecutionCancelled, ExecutionFailed, ServerFault


class Progress(TypedDict):
    """How far a run is; ``message`` is the last that an agent reported."""

    percent: int
    steps_total: int
    steps_completed: int
    message: str | None


class CurrentStep(TypedDict):
    """The step that a run is in."""

    step: str
    agent: str
    attempt: int


class WaitingFor(TypedDict):
    """Why nothing of a run executes now; ``position`` and ``eta_ms`` are estimates, or None."""

    reason: str
    position: int | None
    eta_ms: int | None


class ExecutionError(TypedDict):
    """Why a run failed or was cancelled."""

    error_code: str
    message: str
    kind: str
    agent: str | None
    step: str | None
    attempt: int | None
    retryable: bool


class StepView(TypedDict):
    """One step of a run."""

    step: str
    agent: str
    status: str
    attempts: int
    duration_ms: int | None


class LogLine(TypedDict):
    """One line of a run's log; ``seq`` counts from 1 within the run."""

    seq: int
    execution_id: str
    agent_name: str
    step: str | None
    event: str
    level: str
    message: str
    timestamp: str
    status: str | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Execution:
    """A run as one reply showed it; what that reply left out is None or empty.

    Times are aware datetimes. ``result`` is set once the run is ``completed``, ``error`` once it is ``failed`` or
    ``cancelled``. ``raw`` is the JSON as it came, with members that this version does not know.
    """

    execution_id: str
    status: str
    done: bool
    rev: int
    basket_name: str | None = None
    progress: Progress | None = None
    current_step: CurrentStep | None = None
    waiting_for: WaitingFor | None = None
    steps: list[StepView] = field(default_factory=list)
    result: Any = None
    error: ExecutionError | None = None
    outputs: dict[str, Any] = field(default_factory=dict)
    logs: list[LogLine] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    input_source: str | None = None
    retry_of: str | None = None
    cancel: dict[str, Any] | None = None
    execution_metadata: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    poll_after_ms: int | None = None
    status_url: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    warnings: list[str] = field(default_factory=list)
    raw: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Execution {self.execution_id} of {self.basket_name}: {self.status}>"

    @classmethod
    def from_json(cls, view: Mapping[str, Any]) -> Self:
        """Return the run that a view of the server shows. Raises ServerFault for a view that is none of Bucket's."""
        try:
            known = {name: view[name] for name in _MEMBERS if view.get(name) is not None}
            for name in _TIMES:
                if name in known:
                    known[name] = datetime.fromisoformat(known[name])
            if "basket_name" not in known:
                known["basket_name"] = known.get("execution_metadata", {}).get("basket_name")
            return cls(**known, raw=view)
        except (TypeError, ValueError, AttributeError) as error:
            raise ServerFault(f"the reply shows no run as Bucket does: {error}") from error

    @property
    def is_completed(self) -> bool:
        """Return whether the run ended well, so that ``result`` is there."""
        return self.status == "completed"

    def raise_for_status(self) -> Self:
        """Return the run itself. Raises ExecutionFailed or ExecutionCancelled if it ended so."""
        if self.status == "failed":
            raise ExecutionFailed(self)
        if self.status == "cancelled":
            raise ExecutionCancelled(self)
        return self


_MEMBERS: Final = tuple(member.name for member in fields(Execution) if member.name != "raw")
_TIMES: Final = tuple(name for name in _MEMBERS if name.endswith("_at"))
