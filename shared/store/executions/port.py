"""Ports of the execution store: the protocols that every adapter implements, and their value types.

Every adapter passes ``tests/conformance``. All methods name the integrator (tenant), so that tenancy needs no
migration, except those of :class:`ReconcilerStore`, which only the reconciler calls.
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
    """The result of a heartbeat: the revision and the status of the execution that it renewed."""

    rev: int
    status: ExecutionStatus


@dataclass(frozen=True, slots=True)
class BulkSave:
    """A decision on a complete record, to be written together with others; none of its outputs is stored externally."""

    before: ExecutionRecord
    decision: Decision
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """Log lines and progress of an agent since its last report; ``dropped`` counts the lines that were too many."""

    events: Sequence[LogEvent] = ()
    percent: int | None = None
    message: str | None = None
    dropped: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to report."""
        return not self.events and self.percent is None and self.message is None


@dataclass(frozen=True, slots=True)
class RevisionComparison:
    """Executions compared with the revisions that a caller has; unchanged ones are only counted.

    ``live`` are the first unchanged executions that are not done, in the order of the request, ``live_max`` at most.
    """

    changed: Sequence[Execution]
    live: Sequence[Execution]
    unchanged: int
    missing: Sequence[str]


class ExecutionStore(Protocol):
    """The execution store: optimistic writes, of which two at the same version never both succeed.

    All methods raise Unavailable if nothing was written, OutcomeUnknown if that cannot be known, and NotStorable for
    content that no repetition will store.
    """

    def create(self, decision: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store a new run; return it, or the run that already holds its idempotency key.

        ``outputs`` are those of steps that are completed from the start, as in a retry of a run.
        """

    def withdraw(self, integrator: str, execution_id: str) -> bool:
        """Make sure, by a tombstone, that an unclaimed run does not exist now or later; False if it runs already."""

    def load(self, integrator: str, execution_id: str) -> Execution | None:
        """Return an execution as decisions need it, in its newest state; None if there is none."""

    def save(self, before: Execution, decision: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Write what ``decision`` changed since ``before``; raise StaleWrite if another writer was first.

        A save that ``is_lock_only`` waits for no majority: a claim is a lock and not a record. Its result has neither
        log lines nor outputs.
        """

    def renew(self, lease: Lease, due_by: datetime) -> LeaseRenewal | None:
        """Renew a lease until ``due_by``; return None if the step has moved on."""

    def report(self, lease: Lease, report: ProgressReport) -> ExecutionRecord | None:
        """Add log lines and progress; return None if the step has moved on."""

    def read(
        self,
        integrator: str,
        execution_id: str,
        *,
        outputs: Iterable[str] | None = None,
        page: LogPageQuery | None = None,
        causal: bool = False,
    ) -> ExecutionRecord | None:
        """Return a complete execution, as a majority has it, with its log lines and the given ``outputs`` (None: all).

        With a ``page`` no other lines are fetched, so that a long log does not make a poll expensive. ``causal`` waits
        until a majority has all that an earlier ``load`` can have seen.
        """


class BulkExecutionStore(Protocol):
    """Reads and writes several executions in one call; raises what :class:`ExecutionStore` raises."""

    def load_all(self, integrator: str, execution_ids: Sequence[str]) -> Sequence[ExecutionRecord]:
        """Return the executions that exist, each in its newest state, with their log lines."""

    def save_all(self, saves: Sequence[BulkSave]) -> bool:
        """Write decisions on different executions, each as ``save`` does and only if its ``rev`` is unchanged.

        So ``decision.apply_to(before)`` is the record of each after it. Return False if not all were written. The
        caller then writes each alone, and also if the reply was lost; the filter makes that harmless.
        """


class IdempotencyKeyLookup(Protocol):
    """The first query of a submit that has an idempotency key."""

    def find_by_idempotency_key(self, integrator: str, key: str) -> Execution | None:
        """Return the run that holds ``key``; None if none does. A key is free again after a day."""


class ExecutionQueries(Protocol):
    """Queries of lists and batches on many executions; each method is one round trip."""

    def list_page(
        self, integrator: str, query: ListQuery, limit: int, after: ListPosition | None = None
    ) -> Sequence[ListRow]:
        """Return at most ``limit`` executions of ``query`` after the position ``after``, in the order of the query.

        Here and in :meth:`compare_revisions` they have no ``input`` and no ``metadata``, which no list shows.
        """

    def compare_revisions(
        self, integrator: str, revs: Mapping[str, int | None], live_max: int, *, causal: bool = False
    ) -> RevisionComparison:
        """Compare ``revs`` (revision by id) with the store: which executions differ, and which do not exist.

        Most have not changed and are read no further than the comparison needs. ``causal`` waits until a majority has
        what the primary has.
        """

    def read_many(self, integrator: str, ids: Collection[str], bytes_max: int) -> Sequence[ExecutionRecord]:
        """Return the complete executions of ``ids``, without large outputs; stop once ``bytes_max`` have been read.

        At least one is returned if any exists; the caller can request the rest again.
        """

    def find_by_idempotency_keys(self, integrator: str, keys: Collection[str]) -> Mapping[str, Execution]:
        """Return the runs that hold any of the idempotency ``keys``, by key."""

    def insert_all(self, decisions: Sequence[Decision]) -> Collection[int]:
        """Store new runs in one write; return the indexes of those refused, for example because the key is held.

        Nothing was stored of those. Raises what ``create`` raises if that may apply to all of them.
        """

    def create_many(self, decisions: Sequence[Decision]) -> Sequence[Execution | BucketError]:
        """Store new runs independently; the result has, for each, what ``create`` would return or raise."""


class ReconcilerStore(Protocol):
    """The queries and writes of the reconciler, over all integrators."""

    def find_overdue(
        self, now: datetime, implausible_after: datetime, limit: int
    ) -> Sequence[tuple[Execution, datetime]]:
        """Return executions that were due before ``now``, each with the second in which it was stored.

        One that is due only after ``implausible_after`` got that time from a clock that has since jumped back, and is
        returned too.
        """

    def postpone(self, executions: Sequence[Execution]) -> None:
        """Write the due times of the ready steps, if no decision was saved since; changes no lease."""

    def acquire_leadership(self, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew the leader lease of the reconcilers; return False while another one holds it."""

    def read_newest(self, limit: int, lines_max: int) -> Sequence[ExecutionRecord]:
        """Return the newest executions with their log lines, newest first by the second of their creation.

        It stops once ``lines_max`` lines have been read.
        """
