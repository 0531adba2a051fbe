"""An execution and its parts, as frozen values; what can happen to them stands in ``life``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from shared.domain.definitions.basket import Basket
from shared.domain.status import ExecutionStatus, StepStatus

PUBLIC_INTEGRATOR: Final = "public"
ENGINE_AGENT_NAME: Final = "basket_manager"
LOG_LINES_MAX: Final = 1_000
LOG_PAGE_SIZE_DEFAULT: Final = 100


class ErrorKind(StrEnum):
    """What sort of failure ended a step or a run."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    TIMEOUT = "timeout"
    LOST = "lost"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a step or a run failed, in words that a client may read."""

    error_code: str
    message: str
    kind: ErrorKind
    agent: str | None = None
    step: str | None = None
    attempt: int | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One log line of a run; its ``seq`` is its place among all lines and is not kept here. ``data`` is JSON."""

    at: datetime
    event: str
    message: str
    level: str = "info"
    agent: str = ENGINE_AGENT_NAME
    step: str | None = None
    status: str = "success"
    data: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one worker to one claim of one step, until it is due."""

    integrator: str
    execution_id: str
    step: str
    claim: int
    token: str


@dataclass(frozen=True, slots=True)
class Step:
    """One agent's place in an execution, with the four counts that ENGINE section 1 keeps apart."""

    id: str
    agent: str
    status: StepStatus = StepStatus.WAITING
    claims: int = 0
    failures: int = 0
    losses: int = 0
    offers: int = 0
    offered_at: datetime | None = None
    due_by: datetime | None = None
    token: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: RunError | None = None
    output_bytes: int | None = None
    output_apart: bool = False
    percent: int | None = None
    message: str | None = None
    waited_ms: int = 0
    """How long the rests between its attempts took together."""
    stranger_since: datetime | None = None
    """Since when workers of an older release hand it back because they do not know it."""

    @property
    def is_delayed(self) -> bool:
        """True while it waits for a moment (a schedule, a retry): its offer follows at ``due_by``, no claim before."""
        return self.status is StepStatus.READY and self.offered_at is None

    @property
    def duration_ms(self) -> int | None:
        """How long the last attempt took, in milliseconds; None until it is over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at) // timedelta(milliseconds=1)

    def is_running_under(self, lease: Lease) -> bool:
        """True where ``lease`` is the one that this step runs under."""
        return self.status is StepStatus.RUNNING and self.matches_lease(lease)

    def matches_lease(self, lease: Lease) -> bool:
        """True where the newest claim is that of ``lease``, whether it still runs or its worker moved it on.

        A rescue clears the token, so a step that is no longer running but still bears it was moved by the
        holder itself: that is how one knows one's own write when its answer was lost.
        """
        return self.claims == lease.claim and self.token == lease.token


class CancelOutcome(StrEnum):
    """What a request to cancel came to."""

    APPLIED = "applied"
    PENDING = "pending"
    ALREADY_FINAL = "already_final"


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """That a run was asked to stop, when and why."""

    requested_at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The key under which a run was submitted, and the fingerprint of what was submitted."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a basket, with the snapshot it started with; ``input`` and ``metadata`` are JSON bytes."""

    id: str
    integrator: str
    basket: Basket
    status: ExecutionStatus
    steps: Mapping[str, Step]
    created_at: datetime
    request_id: str
    input: bytes = b"{}"
    input_source: str = "request"
    kind: str = "basket"
    stateful: bool = False
    tags: tuple[str, ...] = ()
    metadata: bytes = b"{}"
    traceparent: str | None = None
    idempotency: Idempotency | None = None
    retry_of: str | None = None
    effects_of: str | None = None
    """The execution whose idempotency keys its steps are handed: its own, or the first one of a chain of retries."""
    run_after: datetime | None = None
    start_deadline: datetime | None = None
    deadline: datetime | None = None
    cancel: CancelRequest | None = None
    dead_letter: bool = False
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: RunError | None = None
    version: int = 1
    rev: int = 1

    @property
    def is_done(self) -> bool:
        """True once nothing about this execution will change."""
        return self.status.is_final

    @property
    def due_by(self) -> datetime | None:
        """The least moment still in force, by which somebody must look again; None once final."""
        if self.is_done:
            return None
        moments = [self.expires_at, *(step.due_by for step in self.steps.values())]
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def expires_at(self) -> datetime | None:
        """The moment at which it fails unless it is done by then, or begun; None where no deadline is in force."""
        moments = [self.deadline, self.start_deadline if self.started_at is None else None]
        return min((moment for moment in moments if moment is not None), default=None)

    def idempotency_key(self, step_id: str) -> str:
        """Answer what every attempt of a step is handed for its effects outside, in retries of a failed run too."""
        return f"{self.effects_of or self.id}:{step_id}"

    @property
    def output_bytes(self) -> int:
        """How many bytes of JSON all recorded outputs take."""
        return sum(step.output_bytes or 0 for step in self.steps.values())

    @property
    def inline_bytes(self) -> int:
        """How many bytes of JSON lie in the execution itself: input, metadata and the outputs kept in it."""
        outputs = sum(step.output_bytes or 0 for step in self.steps.values() if not step.output_apart)
        return len(self.input) + len(self.metadata) + outputs

    def lease_of(self, step_id: str) -> Lease:
        """Answer the lease under which ``step_id`` runs; ValueError where it does not."""
        step = self.steps[step_id]
        if step.status is not StepStatus.RUNNING or step.token is None:
            raise ValueError(f"step {step_id} is {step.status} and has no lease")
        return Lease(self.integrator, self.id, step_id, step.claims, step.token)


@dataclass(frozen=True, slots=True)
class LogPageQuery:
    """Which log lines a reader wants: the first ``limit`` beyond ``after``, or the newest where it is None."""

    after: int | None = None
    limit: int = LOG_PAGE_SIZE_DEFAULT


NEWEST_LOG_LINES: Final = LogPageQuery()


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """An execution with what decisions do without: its newest log lines and its outputs as JSON bytes.

    ``lines_total`` counts every line ever written, so the first of ``events`` has ``seq``
    ``lines_total - len(events) + 1`` and the lines before it were dropped. Where ``events`` are only a page of
    the lines, ``lines_kept`` tells how many there are and ``page_from`` the ``seq`` of the page's first.
    """

    execution: Execution
    events: tuple[LogEvent, ...] = ()
    lines_total: int = 0
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    lines_kept: int | None = None
    page_first_seq: int | None = None

    @property
    def first_seq(self) -> int:
        """The ``seq`` of the oldest line still kept; 1 where none was dropped."""
        return self.lines_total - (len(self.events) if self.lines_kept is None else self.lines_kept) + 1

    @property
    def events_first_seq(self) -> int:
        """The ``seq`` of the first of ``events``."""
        return self.first_seq if self.page_first_seq is None else self.page_first_seq

    def with_log_page(self, page: LogPageQuery) -> ExecutionRecord:
        """Answer this record with no other lines than those of ``page``."""
        start = self.events_first_seq
        if page.after is None:
            events = self.events[-page.limit :]
            first = start + len(self.events) - len(events)
        else:
            skipped = min(max(page.after + 1 - start, 0), len(self.events))
            events = self.events[skipped : skipped + page.limit]
            first = start + skipped
        return replace(self, events=events, lines_kept=self.lines_total - self.first_seq + 1, page_first_seq=first)
