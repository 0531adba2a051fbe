"""What a place that remembers executions must do, whatever it is made of.

Every adapter passes ``tests/conformance``. All verbs name the integrator, so that tenancy needs no migration, but
those of :class:`OverdueSearch`, which only the reconciler calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from shared.domain.execution import Execution, ExecutionRecord, Lease, LogEvent, LogPageQuery
from shared.domain.lifecycle.decision import Decision
from shared.domain.list_query import ListPosition, ListQuery, ListRow
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError

IDEMPOTENCY_KEY_TTL: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class LeaseRenewal:
    """What a heartbeat brings back: the revision and the status that its update found."""

    rev: int
    status: ExecutionStatus


@dataclass(frozen=True, slots=True)
class BulkSave:
    """A decision on a record that is known whole, to be written beside others; none of its outputs lies apart."""

    before: ExecutionRecord
    decision: Decision
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """What an agent told since the last report: log lines, and how far it is; ``dropped`` lines were too many."""

    events: Sequence[LogEvent] = ()
    percent: int | None = None
    message: str | None = None
    dropped: int = 0

    @property
    def is_empty(self) -> bool:
        """True where there is nothing to tell."""
        return not self.events and self.percent is None and self.message is None


@dataclass(frozen=True, slots=True)
class RevisionComparison:
    """Executions beside what a caller knows of them; unchanged ones are only counted.

    ``live`` are the first, in the order asked, of those that are unchanged and not done, as many as were asked for.
    """

    changed: Sequence[Execution]
    live: Sequence[Execution]
    unchanged: int
    missing: Sequence[str]


class ExecutionStore(Protocol):
    """A place that remembers executions and never lets two writers both win.

    All raise Unavailable where nothing was written, OutcomeUnknown where nobody can tell, and NotStorable for
    content that no repetition will store.
    """

    def create(self, decision: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store a new run; answer it, or the one that holds its idempotency key already.

        ``outputs`` are those of the steps that it begins with as completed: a retry's.
        """

    def withdraw(self, integrator: str, execution_id: str) -> bool:
        """Make sure that an unclaimed run does not exist, now or later; False where it runs already."""

    def load(self, integrator: str, execution_id: str) -> Execution | None:
        """Answer an execution as decisions need it, the newest there is; None where there is none."""

    def save(self, before: Execution, decision: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Write what ``advance`` changed since ``before``; raise StaleWrite where somebody wrote first.

        A ``lock_only`` save waits for no majority: a claim is a lock and no record, and its answer bears neither
        log lines nor outputs.
        """

    def renew(self, lease: Lease, due_by: datetime) -> LeaseRenewal | None:
        """Push the end of a lease out to ``due_by``; None where the step has moved on."""

    def report(self, lease: Lease, report: ProgressReport) -> ExecutionRecord | None:
        """Add log lines and progress; None where the step has moved on."""

    def read(
        self,
        integrator: str,
        execution_id: str,
        *,
        outputs: Iterable[str] | None = None,
        page: LogPageQuery | None = None,
        causal: bool = False,
    ) -> ExecutionRecord | None:
        """Answer an execution whole, as a majority has it, with its log lines and those ``outputs`` (or all).

        With a ``page`` no other lines are fetched, so that a long log makes no poll dear. ``newest`` waits until a
        majority has all that a ``load`` before it can have seen.
        """


class BulkExecutionStore(Protocol):
    """Reads and writes several executions in one call; raises what :class:`ExecutionStore` raises."""

    def load_all(self, integrator: str, execution_ids: Sequence[str]) -> Sequence[ExecutionRecord]:
        """Answer those of the executions that there are, the newest there is of each, with their log lines."""

    def save_all(self, saves: Sequence[BulkSave]) -> bool:
        """Write decisions on different executions, each as ``save`` does and only at the ``rev`` that was seen.

        So ``advance.written_on(before)`` is the record of each after it. False where not all were written: which,
        is found out by writing each alone, as it is where the answer is lost; its filter makes that harmless.
        """


class IdempotencyKeyLookup(Protocol):
    """What a submit with an idempotency key asks before all else."""

    def find_by_idempotency_key(self, integrator: str, key: str) -> Execution | None:
        """Answer the run that holds ``key``; None where none does, or none any more after a day."""


class ExecutionQueries(Protocol):
    """What lists and batches ask about many executions, each verb in one round trip."""

    def list_page(
        self, integrator: str, query: ListQuery, limit: int, after: ListPosition | None = None
    ) -> Sequence[ListRow]:
        """Answer at most ``limit`` of those ``wanted`` that lie beyond ``after``, in the order wanted.

        Neither here nor in :meth:`compare` do they bear their ``input`` and ``metadata``, which no list shows.
        """

    def compare_revisions(
        self, integrator: str, revs: Mapping[str, int | None], live_max: int, *, causal: bool = False
    ) -> RevisionComparison:
        """Answer which executions have another revision than ``revs`` tells by id, and which are not there.

        Most have not changed, and are looked at no closer than that takes. ``newest`` waits until a majority has
        what the primary has.
        """

    def read_many(self, integrator: str, ids: Collection[str], bytes_max: int) -> Sequence[ExecutionRecord]:
        """Answer those of ``ids`` that there are whole, but for large outputs; none more once ``bytes_max`` are read.

        At least one is answered where there is one; what is not answered may be asked for again.
        """

    def find_by_idempotency_keys(self, integrator: str, keys: Collection[str]) -> Mapping[str, Execution]:
        """Answer the runs that hold those of ``keys`` that are held, by key."""

    def insert_all(self, decisions: Sequence[Decision]) -> Collection[int]:
        """Store new runs in one write; answer the places of those refused, as one is whose key is held.

        Of those nothing was stored. Raises what ``create`` raises where it may be so of all of them.
        """

    def create_many(self, decisions: Sequence[Decision]) -> Sequence[Execution | BucketError]:
        """Store new runs, each by itself: for each what ``create`` would answer or raise."""


class ReconcilerStore(Protocol):
    """What the reconciler asks of the store, over all integrators."""

    def find_overdue(
        self, now: datetime, implausible_after: datetime, limit: int
    ) -> Sequence[tuple[Execution, datetime]]:
        """Answer executions with something due before ``now``, each with the second in which it was stored.

        What is due only after ``far`` was set by a clock that has since jumped back, and is answered too.
        """

    def postpone(self, executions: Sequence[Execution]) -> None:
        """Write the due moments of what is ready in these, where nobody has decided since; moves no lease."""

    def acquire_leadership(self, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew the right to act for all reconcilers; False while another holds it."""

    def read_newest(self, limit: int, lines_max: int) -> Sequence[ExecutionRecord]:
        """Answer the newest executions with their log lines, newest first by the second they were made in.

        None more once ``lines_max`` lines have been read.
        """
