"""An execution and its parts, as frozen values; ``shared.domain.lifecycle.transitions`` has what can happen to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from shared.domain.definitions.basket import BULK_AGENT_NAME, Basket
from shared.domain.status import ExecutionStatus, StepStatus

INLINE: Final = "inline"
OWN_BASKET: Final = "own_basket"  # the kind of a run of a basket that only its integrator has
NAMED_KINDS: Final = frozenset({"basket", OWN_BASKET})  # of runs whose basket was given by its name
PUBLIC_INTEGRATOR: Final = "public"
ENGINE_AGENT_NAME: Final = "basket_manager"
PRIORITY_FIRST_OFFER: Final = 3
PRIORITY_REOFFER: Final = 0
# Separates the key of a batch from the index of an item; no caller can send this character in a key.
_BATCH_KEY_SEPARATOR: Final = "\x1f"
LOG_LINES_MAX: Final = 1_000
LOG_PAGE_SIZE_DEFAULT: Final = 100


class ErrorKind(StrEnum):
    """The kind of failure that ended a step or a run."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    TIMEOUT = "timeout"
    LOST = "lost"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a step or a run failed, in words that a client may read; polls show its fields, in this order."""

    error_code: str
    message: str
    kind: ErrorKind
    agent: str | None = None
    step: str | None = None
    attempt: int | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One log line of a run; its ``seq``, the number among all lines, is not stored here. ``data`` is JSON."""

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
    """A lease: the right of one worker to one claim of one step, until it expires; ``token`` is the fencing token."""

    integrator: str
    execution_id: str
    step: str
    claim: int
    token: str


@dataclass(frozen=True, slots=True)
class Step:
    """One agent's place in an execution, with four separate counters (docs/engine.md, section 1).

    ``claims`` counts attempts, ``failures`` failed attempts, ``losses`` lost workers, ``offers`` task messages sent.
    """

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
    marked: bytes | None = None  # marked fields of its output, sealed; the output has ``***`` in their places
    percent: int | None = None
    message: str | None = None
    waited_ms: int = 0  # the sum of the retry delays between its attempts
    stranger_since: datetime | None = None  # since then workers of an older release hand it back: they lack its agent

    @property
    def is_delayed(self) -> bool:
        """Whether it is ready but waits for a time (schedule, retry): offered at ``due_by``, and not claimed before."""
        return self.status is StepStatus.READY and self.offered_at is None

    @property
    def priority(self) -> int:
        """The priority of its last offer: rescues, retries, hand-backs and bulk actions go before first offers."""
        is_first = self.offers <= 1 and self.claims == 0 and self.agent != BULK_AGENT_NAME
        return PRIORITY_FIRST_OFFER if is_first else PRIORITY_REOFFER

    @property
    def duration_ms(self) -> int | None:
        """The duration of the last attempt in milliseconds; None until it is over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at) // timedelta(milliseconds=1)

    def is_running_under(self, lease: Lease) -> bool:
        """Return whether this step is running under ``lease``."""
        return self.status is StepStatus.RUNNING and self.matches_lease(lease)

    def matches_lease(self, lease: Lease) -> bool:
        """Return whether the newest claim is that of ``lease``, running or already ended by its worker.

        Whoever else ends a claim (a rescue, a deadline) clears the token. So a step that no longer runs but still has
        it was moved by the holder of the lease: by this a worker recognises its own write whose reply was lost.
        """
        return self.claims == lease.claim and self.token == lease.token


class CancelOutcome(StrEnum):
    """The outcome of a request to cancel."""

    APPLIED = "applied"
    PENDING = "pending"
    ALREADY_FINAL = "already_final"


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A request to cancel a run: its time and reason."""

    requested_at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The idempotency key of a submit, and the fingerprint of its body."""

    key: str
    fingerprint: str


def batch_item_key(batch_key: str, index: int | str) -> str:
    """Return the idempotency key of an item of a batch that only the batch gave a key."""
    return f"{batch_key}{_BATCH_KEY_SEPARATOR}{index}"


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a basket, with the basket as it was at the start; ``input`` and ``metadata`` are JSON bytes."""

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
    """What was submitted: ``basket`` (by its name), ``inline`` (a basket within the request) or ``agent``."""
    stateful: bool = False
    tags: tuple[str, ...] = ()
    metadata: bytes = b"{}"
    reference: str | None = None
    traceparent: str | None = None
    idempotency: Idempotency | None = None
    retry_of: str | None = None
    requeue_of: str | None = None  # the dead letter that it is sent again for, which is the run ``retry_of``
    effects_of: str | None = None
    """The execution whose id is part of its steps' idempotency keys: the first of a chain of retries; None: its own."""
    run_after: datetime | None = None
    start_deadline: datetime | None = None
    deadline: datetime | None = None
    cancel: CancelRequest | None = None
    dead_letter: bool = False
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: RunError | None = None
    erased_at: datetime | None = None
    version: int = 1
    rev: int = 1
    audit: Mapping[str, str] | None = None  # who made it by which action; only until it is stored

    @property
    def has_due_time_of_its_own(self) -> bool:
        """Whether a deadline or a delayed step sets a time for it, besides the hand-off time of its offers."""
        return any((self.start_deadline, self.deadline, *(step.is_delayed for step in self.steps.values())))

    @property
    def is_done(self) -> bool:
        """Whether the status is final: nothing about this execution changes any more."""
        return self.status.is_final

    @property
    def due_by(self) -> datetime | None:
        """The earliest due time or deadline in force, at which the reconciler must check the run; None if final."""
        if self.is_done:
            return None
        due_times = [self.expires_at, *(step.due_by for step in self.steps.values())]
        return min((moment for moment in due_times if moment is not None), default=None)

    @property
    def expires_at(self) -> datetime | None:
        """The time at which it fails unless it is done (deadline) or started (start deadline); None if none is set."""
        deadlines = [self.deadline, self.start_deadline if self.started_at is None else None]
        return min((moment for moment in deadlines if moment is not None), default=None)

    def idempotency_key(self, step_id: str) -> str:
        """Return the idempotency key for a step's external effects, equal in all its attempts.

        It is also the same in retries of the run from the failed steps.
        """
        return f"{self.effects_of or self.id}:{step_id}"

    @property
    def output_bytes(self) -> int:
        """The size of all recorded outputs, in bytes of JSON."""
        return sum(step.output_bytes or 0 for step in self.steps.values())

    @property
    def inline_bytes(self) -> int:
        """The bytes of JSON stored in the execution itself: input, metadata and the outputs that are not external."""
        outputs = sum(step.output_bytes or 0 for step in self.steps.values() if not step.output_apart)
        return len(self.input) + len(self.metadata) + outputs

    def lease_of(self, step_id: str) -> Lease:
        """Return the lease under which ``step_id`` runs; raises ValueError if it does not run."""
        step = self.steps[step_id]
        if step.status is not StepStatus.RUNNING or step.token is None:
            raise ValueError(f"step {step_id} is {step.status} and has no lease")
        return Lease(self.integrator, self.id, step_id, step.claims, step.token)


@dataclass(frozen=True, slots=True)
class LogPageQuery:
    """A page of log lines: the first ``limit`` with a ``seq`` above ``after``, or the newest if it is None."""

    after: int | None = None
    limit: int = LOG_PAGE_SIZE_DEFAULT


NEWEST_LOG_LINES: Final = LogPageQuery()


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """An execution with the data that decisions do not need: its newest log lines, and its outputs as JSON bytes.

    ``lines_total`` counts every line ever written, so the first of ``events`` has the ``seq``
    ``lines_total - len(events) + 1``, and the lines before it were dropped. If ``events`` is only a page of
    the stored lines, ``lines_kept`` is the number of stored lines and ``page_first_seq`` the ``seq`` of the first
    line of the page.
    """

    execution: Execution
    events: tuple[LogEvent, ...] = ()
    lines_total: int = 0
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    lines_kept: int | None = None
    page_first_seq: int | None = None

    @property
    def first_seq(self) -> int:
        """The ``seq`` of the oldest line that is still stored; 1 if none was dropped."""
        return self.lines_total - (len(self.events) if self.lines_kept is None else self.lines_kept) + 1

    @property
    def events_first_seq(self) -> int:
        """The ``seq`` of the first of ``events``."""
        return self.first_seq if self.page_first_seq is None else self.page_first_seq

    def with_log_page(self, page: LogPageQuery) -> ExecutionRecord:
        """Return this record with only the log lines of ``page``."""
        start = self.events_first_seq
        if page.after is None:
            events = self.events[-page.limit :]
            first = start + len(self.events) - len(events)
        else:
            skipped = min(max(page.after + 1 - start, 0), len(self.events))
            events = self.events[skipped : skipped + page.limit]
            first = start + skipped
        return replace(self, events=events, lines_kept=self.lines_total - self.first_seq + 1, page_first_seq=first)
