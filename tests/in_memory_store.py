"""An execution store in memory that keeps the promises of the port, for tests of rules."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate

from shared.domain.execution import LOG_LINES_MAX, Execution, ExecutionRecord, Lease, LogEvent, LogPageQuery
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.step_transitions import with_steps
from shared.domain.list_query import ListOrder, ListPosition, ListQuery, ListRow
from shared.domain.status import StepStatus
from shared.errors import BucketError, OutcomeUnknown, StaleWrite
from shared.store.executions.port import IDEMPOTENCY_KEY_TTL, BulkSave, LeaseRenewal, ProgressReport, RevisionComparison
from shared.store.server_clock import Clock


class InMemoryExecutionStore:
    """Executions of one process; forgotten with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, ExecutionRecord] = {}
        self._stored_at: dict[str, datetime] = {}
        self._updated_at: dict[str, datetime] = {}
        self._tombstones: set[str] = set()
        self._leader: tuple[str, datetime] | None = None

    def create(self, decision: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store a new run, or answer the holder of its key."""
        new = decision.execution
        with self._lock:
            if new.id in self._tombstones or new.id in self._records:
                raise OutcomeUnknown(f"{new.id} was withdrawn or exists already")
            holder = None if new.idempotency is None else self._find_by_key(new.integrator, new.idempotency.key)
            if holder is not None and self._is_key_in_force(holder):
                return holder
            if holder is not None:
                self._put(replace(holder, idempotency=None))
            self._records[new.id] = replace(decision.initial_record, outputs=outputs or {})
            self._stored_at[new.id] = self._clock.now().replace(microsecond=0)
            self._updated_at[new.id] = new.created_at
            return new

    def find_by_idempotency_key(self, integrator: str, key: str) -> Execution | None:
        """Answer the run that holds ``key``."""
        held = self._find_by_key(integrator, key)
        return held if held is not None and self._is_key_in_force(held) else None

    def withdraw(self, integrator: str, execution_id: str) -> bool:
        """Put a tombstone where no claimed run is."""
        with self._lock:
            found = self._find(integrator, execution_id)
            if found is not None and found.execution.started_at is not None:
                return False
            self._records.pop(execution_id, None)
            self._tombstones.add(execution_id)
            return True

    def load(self, integrator: str, execution_id: str) -> Execution | None:
        """Answer an execution without its log lines and outputs."""
        found = self._find(integrator, execution_id)
        return None if found is None else found.execution

    def save(self, before: Execution, decision: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Write one decision where version and lease still stand."""
        with self._lock:
            found = self._find(before.integrator, before.id)
            if (
                found is None
                or not _is_unchanged(found.execution, before, decision)
                or not _may_write(found.execution, lease)
            ):
                raise StaleWrite(f"{before.id} is no longer at version {before.version}")
            visible = bool(decision.events)
            after = replace(
                decision.execution, version=before.version + 1, rev=found.execution.rev + (1 if visible else 0)
            )
            outputs = dict(found.outputs)
            outputs |= {output.step: output.json for output in decision.outputs}
            record = _with_events(replace(found, execution=after, outputs=outputs), decision.events)
            self._records[before.id] = record
            if visible:
                self._updated_at[before.id] = self._clock.now()
            return ExecutionRecord(after, (), record.lines_total) if decision.is_lock_only else record

    def load_all(self, integrator: str, execution_ids: Sequence[str]) -> Sequence[ExecutionRecord]:
        """Answer those of the executions that there are."""
        found = (self._find(integrator, execution_id) for execution_id in execution_ids)
        return [record for record in found if record is not None]

    def save_all(self, saves: Sequence[BulkSave]) -> bool:
        """Write each decision where nobody wrote meanwhile; False where one was not written."""
        written = [self._is_saved(save) for save in saves]
        return all(written)

    def _is_saved(self, save: BulkSave) -> bool:
        before = save.before.execution
        with self._lock:
            found = self._find(before.integrator, before.id)
            if found is None or found.execution.rev != before.rev:
                return False
            try:
                self.save(before, save.decision, lease=save.lease)
            except StaleWrite:
                return False
            return True

    def renew(self, lease: Lease, due_by: datetime) -> LeaseRenewal | None:
        """Push a lease out."""
        with self._lock:
            found = self._find_under_lease(lease)
            if found is None:
                return None
            step = replace(found.execution.steps[lease.step], due_by=due_by)
            self._put(replace(found.execution, steps={**found.execution.steps, step.id: step}))
            return LeaseRenewal(found.execution.rev, found.execution.status)

    def report(self, lease: Lease, report: ProgressReport) -> ExecutionRecord | None:
        """Add log lines and progress."""
        with self._lock:
            found = self._find_under_lease(lease)
            if found is None:
                return None
            step = found.execution.steps[lease.step]
            told = replace(
                step,
                percent=step.percent if report.percent is None else report.percent,
                message=step.message if report.message is None else report.message,
            )
            execution = replace(
                found.execution, rev=found.execution.rev + 1, steps={**found.execution.steps, step.id: told}
            )
            self._records[lease.execution_id] = _with_events(
                replace(found, execution=execution, lines_total=found.lines_total + report.dropped), report.events
            )
            self._updated_at[lease.execution_id] = self._clock.now()
            return self._records[lease.execution_id]

    def read(
        self,
        integrator: str,
        execution_id: str,
        *,
        outputs: Iterable[str] | None = None,
        page: LogPageQuery | None = None,
        causal: bool = False,
    ) -> ExecutionRecord | None:
        """Answer an execution whole; nothing is kept apart here or comes late, so the rest makes no difference."""
        del outputs, causal
        found = self._find(integrator, execution_id)
        return found if found is None or page is None else found.with_log_page(page)

    def find_overdue(
        self, now: datetime, implausible_after: datetime, limit: int
    ) -> Sequence[tuple[Execution, datetime]]:
        """Answer what is due, the longest overdue first."""
        due = [
            (record.execution.due_by, record.execution)
            for record in self._records.values()
            if record.execution.due_by is not None and not now <= record.execution.due_by <= implausible_after
        ]
        due.sort(key=lambda pair: pair[0])
        return [(execution, self._stored_at[execution.id]) for _, execution in due[:limit]]

    def postpone(self, executions: Sequence[Execution]) -> None:
        """Write due moments where the version still stands."""
        with self._lock:
            for execution in executions:
                found = self._find(execution.integrator, execution.id)
                if found is not None and found.execution.version == execution.version:
                    ready = [step for step in execution.steps.values() if step.status is StepStatus.READY]
                    self._put(with_steps(found.execution, *ready))

    def acquire_leadership(self, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew the reconcilers' lease."""
        with self._lock:
            impossible = until + (until - now) + timedelta(seconds=1)
            if self._leader is not None and self._leader[0] != holder and now <= self._leader[1] <= impossible:
                return False
            self._leader = (holder, until)
            return True

    def read_newest(self, limit: int, lines_max: int) -> Sequence[ExecutionRecord]:
        """Answer the newest executions."""
        found = sorted(self._records.values(), key=lambda record: record.execution.id, reverse=True)[:limit]
        lines = accumulate((len(record.events) for record in found), initial=0)
        return [record for record, before in zip(found, lines, strict=False) if before < lines_max]

    def list_page(
        self, integrator: str, query: ListQuery, limit: int, after: ListPosition | None = None
    ) -> Sequence[ListRow]:
        """Answer a page of those wanted."""
        runs = [record.execution for record in self._records.values() if record.execution.integrator == integrator]
        found = [
            ListRow(_without_payload(run), self._position_of(run, query.order))
            for run in runs
            if _matches_query(run, self._updated_at[run.id], query)
        ]
        is_newest = query.order is ListOrder.NEWEST
        found.sort(key=lambda row: row.position, reverse=is_newest)
        if after is not None:
            found = [row for row in found if (row.position < after if is_newest else row.position > after)]
        return found[:limit]

    def _position_of(self, run: Execution, order: ListOrder) -> ListPosition:
        return ListPosition(self._updated_at[run.id] if order is ListOrder.UPDATED else run.created_at, run.id)

    def compare_revisions(
        self, integrator: str, revs: Mapping[str, int | None], live_max: int, *, causal: bool = False
    ) -> RevisionComparison:
        """Compare revisions; nothing comes late here."""
        del causal
        records = filter(None, (self._find(integrator, each) for each in revs))
        found = {record.execution.id: _without_payload(record.execution) for record in records}
        same = [each for each in found.values() if each.rev == revs[each.id]]
        return RevisionComparison(
            changed=[each for each in found.values() if each.rev != revs[each.id]],
            live=[each for each in same if not each.is_done][:live_max],
            unchanged=len(same),
            missing=[each for each in revs if each not in found],
        )

    def read_many(self, integrator: str, ids: Collection[str], bytes_max: int) -> Sequence[ExecutionRecord]:
        """Answer executions whole."""
        records: list[ExecutionRecord] = []
        for record in filter(None, (self._find(integrator, each) for each in ids)):
            records.append(record)
            bytes_max -= sum(map(len, record.outputs.values()))
            if bytes_max <= 0:
                break
        return records

    def find_by_idempotency_keys(self, integrator: str, keys: Collection[str]) -> Mapping[str, Execution]:
        """Answer who holds keys."""
        return {key: held for key in keys if (held := self.find_by_idempotency_key(integrator, key)) is not None}

    def insert_all(self, decisions: Sequence[Decision]) -> Collection[int]:
        """Store new runs one by one."""
        made = self.create_many(decisions)
        return [at for at, advance in enumerate(decisions) if made[at] != advance.execution]

    def create_many(self, decisions: Sequence[Decision]) -> Sequence[Execution | BucketError]:
        """Store new runs one by one."""

        def create(advance: Decision) -> Execution | BucketError:
            try:
                return self.create(advance)
            except BucketError as error:
                return error

        return [create(advance) for advance in decisions]

    def _find(self, integrator: str, execution_id: str) -> ExecutionRecord | None:
        found = self._records.get(execution_id)
        return found if found is not None and found.execution.integrator == integrator else None

    def _find_under_lease(self, lease: Lease) -> ExecutionRecord | None:
        found = self._find(lease.integrator, lease.execution_id)
        return found if found is not None and _may_write(found.execution, lease) else None

    def _find_by_key(self, integrator: str, key: str) -> Execution | None:
        wanted = (integrator, key)
        held = (record.execution for record in self._records.values())
        return next((run for run in held if run.idempotency and (run.integrator, run.idempotency.key) == wanted), None)

    def _is_key_in_force(self, holder: Execution) -> bool:
        return self._clock.now() - holder.created_at < IDEMPOTENCY_KEY_TTL

    def _put(self, execution: Execution) -> None:
        self._records[execution.id] = replace(self._records[execution.id], execution=execution)


def _is_unchanged(found: Execution, before: Execution, advance: Decision) -> bool:
    step = advance.rescued_step
    renewed = step is not None and found.steps[step].due_by != before.steps[step].due_by
    return found.version == before.version and not renewed


def _may_write(execution: Execution, lease: Lease | None) -> bool:
    return lease is None or (lease.step in execution.steps and execution.steps[lease.step].is_running_under(lease))


def _with_events(record: ExecutionRecord, events: Sequence[LogEvent]) -> ExecutionRecord:
    kept = (*record.events, *events)[-LOG_LINES_MAX:]
    return replace(record, events=kept, lines_total=record.lines_total + len(events))


def _without_payload(execution: Execution) -> Execution:
    return replace(execution, input=b"{}", metadata=b"{}")


def _matches_query(execution: Execution, updated_at: datetime, wanted: ListQuery) -> bool:
    return (
        (not wanted.statuses or execution.status in wanted.statuses)
        and (wanted.basket is None or execution.basket.name == wanted.basket)
        and (wanted.tag is None or wanted.tag in execution.tags)
        and (wanted.request_id is None or execution.request_id == wanted.request_id)
        and (wanted.retry_of is None or execution.retry_of == wanted.retry_of)
        and (wanted.created_after is None or execution.created_at > wanted.created_after)
        and (wanted.created_before is None or execution.created_at < wanted.created_before)
        and (wanted.updated_since is None or updated_at >= wanted.updated_since)
    )
