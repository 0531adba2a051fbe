"""An in-memory execution store (fake) with the methods of the MongoDB stores, for tests of rules."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate

from shared.domain.access.caller import Scope
from shared.domain.execution import LOG_LINES_MAX, Execution, ExecutionRecord, Lease, LogEvent, LogPageQuery
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.step_transitions import with_steps
from shared.domain.list_query import ListOrder, ListPosition, ListQuery, ListRow
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import BucketError, OutcomeUnknown, StaleWrite
from shared.store.executions.bulk import BulkSave
from shared.store.executions.queries import RecordBatch, RevisionComparison
from shared.store.executions.store import IDEMPOTENCY_KEY_TTL
from shared.store.executions.updates import LeaseRenewal, ProgressReport
from shared.store.server_clock import Clock


class InMemoryExecutionStore:
    """The execution store of one process; it passes the same conformance tests as MongoDB."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, ExecutionRecord] = {}
        self._stored_at: dict[str, datetime] = {}
        self._updated_at: dict[str, datetime] = {}
        self._tombstones: set[str] = set()
        self._leader: tuple[str, datetime] | None = None

    def create(self, decision: Decision, outputs: Mapping[str, bytes] | None = None) -> Execution:
        """Store a new run, or return the holder of its key."""
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
        """Return the run that holds ``key``."""
        holder = self._find_by_key(integrator, key)
        return holder if holder is not None and self._is_key_in_force(holder) else None

    def withdraw(self, integrator: str, execution_id: str) -> bool:
        """Replace a run by a tombstone, unless it was claimed."""
        with self._lock:
            record = self._find(integrator, execution_id)
            if record is not None and record.execution.started_at is not None:
                return False
            self._records.pop(execution_id, None)
            self._tombstones.add(execution_id)
            return True

    def load(self, scope: Scope, execution_id: str) -> Execution | None:
        """Return an execution without its log lines and outputs."""
        record = self._find(scope, execution_id)
        return None if record is None else record.execution

    def save(self, before: Execution, decision: Decision, *, lease: Lease | None = None) -> ExecutionRecord:
        """Write one decision if version and lease are unchanged."""
        with self._lock:
            current = self._find(before.integrator, before.id)
            if (
                current is None
                or not _is_unchanged(current.execution, before, decision)
                or not _may_write(current.execution, lease)
            ):
                raise StaleWrite(f"{before.id} is no longer at version {before.version}")
            visible = bool(decision.events)
            after = replace(
                decision.execution, version=before.version + 1, rev=current.execution.rev + (1 if visible else 0)
            )
            outputs = dict(current.outputs)
            outputs |= {output.step: output.json for output in decision.outputs}
            record = _with_events(replace(current, execution=after, outputs=outputs), decision.events)
            self._records[before.id] = record
            if visible:
                self._updated_at[before.id] = self._clock.now()
            return ExecutionRecord(after, (), record.lines_total) if decision.is_lock_only else record

    def load_all(self, integrator: str, execution_ids: Sequence[str]) -> Sequence[ExecutionRecord]:
        """Return the executions that exist."""
        records = (self._find(integrator, execution_id) for execution_id in execution_ids)
        return [record for record in records if record is not None]

    def save_all(self, saves: Sequence[BulkSave]) -> bool:
        """Write each decision whose execution is unchanged; return False if one was not written."""
        written = [self._is_saved(save) for save in saves]
        return all(written)

    def _is_saved(self, save: BulkSave) -> bool:
        before = save.before.execution
        with self._lock:
            record = self._find(before.integrator, before.id)
            if record is None or record.execution.rev != before.rev:
                return False
            try:
                self.save(before, save.decision, lease=save.lease)
            except StaleWrite:
                return False
            return True

    def renew(self, lease: Lease, due_by: datetime) -> LeaseRenewal | None:
        """Renew a lease."""
        with self._lock:
            record = self._find_under_lease(lease)
            if record is None:
                return None
            step = replace(record.execution.steps[lease.step], due_by=due_by)
            self._put(with_steps(record.execution, step))
            return LeaseRenewal(record.execution.rev, record.execution.status)

    def report(self, lease: Lease, report: ProgressReport) -> ExecutionRecord | None:
        """Add log lines and progress."""
        with self._lock:
            record = self._find_under_lease(lease)
            if record is None:
                return None
            step = record.execution.steps[lease.step]
            updated = replace(
                step,
                percent=step.percent if report.percent is None else max(report.percent, step.percent or 0),
                message=step.message if report.message is None else report.message,
            )
            execution = with_steps(replace(record.execution, rev=record.execution.rev + 1), updated)
            self._records[lease.execution_id] = _with_events(
                replace(record, execution=execution, lines_total=record.lines_total + report.dropped), report.events
            )
            self._updated_at[lease.execution_id] = self._clock.now()
            return self._records[lease.execution_id]

    def read(
        self,
        scope: Scope,
        execution_id: str,
        *,
        outputs: Iterable[str] | None = None,
        page: LogPageQuery | None = None,
        causal: bool = False,
    ) -> ExecutionRecord | None:
        """Return a complete execution; here no output is external and no read lags, so these arguments are ignored."""
        del outputs, causal
        record = self._find(scope, execution_id)
        return record if record is None or page is None else record.with_log_page(page)

    def find_overdue(
        self, now: datetime, implausible_after: datetime | None, limit: int
    ) -> Sequence[tuple[Execution, datetime]]:
        """Return overdue executions, the longest overdue first."""

        def is_implausible(run: Execution, due_by: datetime) -> bool:
            is_scheduled = run.status is ExecutionStatus.SCHEDULED
            return implausible_after is not None and due_by > implausible_after and not is_scheduled

        due = [
            (due_by, run)
            for run in (record.execution for record in self._records.values())
            if (due_by := run.due_by) is not None and (due_by < now or is_implausible(run, due_by))
        ]
        due.sort(key=lambda pair: pair[0])
        return [(execution, self._stored_at[execution.id]) for _, execution in due[:limit]]

    def postpone(self, executions: Sequence[Execution]) -> None:
        """Write due times if the version is unchanged."""
        with self._lock:
            for execution in executions:
                record = self._find(execution.integrator, execution.id)
                if record is not None and record.execution.version == execution.version:
                    ready = [step for step in execution.steps.values() if step.status is StepStatus.READY]
                    self._put(with_steps(record.execution, *ready))

    def acquire_leadership(self, holder: str, now: datetime, until: datetime) -> bool:
        """Take or renew the leader lease of the reconcilers."""
        with self._lock:
            impossible = until + (until - now) + timedelta(seconds=1)
            if self._leader is not None and self._leader[0] != holder and now <= self._leader[1] <= impossible:
                return False
            self._leader = (holder, until)
            return True

    def find_integrator(self, execution_id: str) -> str | None:
        """Return the integrator of an execution."""
        record = self._find(None, execution_id)
        return None if record is None else record.execution.integrator

    def read_newest(self, scope: Scope, limit: int, lines_max: int) -> Sequence[ExecutionRecord]:
        """Return the newest executions."""
        visible = [record for record in self._records.values() if scope in {None, record.execution.integrator}]
        records = sorted(visible, key=lambda record: record.execution.id, reverse=True)[:limit]
        lines = accumulate((len(record.events) for record in records), initial=0)
        return [record for record, before in zip(records, lines, strict=False) if before < lines_max]

    def list_page(
        self,
        scope: Scope,
        query: ListQuery,
        limit: int,
        after: ListPosition | None = None,
        *,
        with_metadata: bool = False,
    ) -> Sequence[ListRow]:
        """Return a page of the executions that match ``query``."""
        runs = [each.execution for each in self._records.values() if scope in {None, each.execution.integrator}]
        rows = [
            ListRow(
                replace(run, input=b"{}") if with_metadata else _without_payload(run),
                self._position_of(run, query.order),
            )
            for run in runs
            if _matches_query(run, self._updated_at[run.id], query)
        ]
        is_newest = query.order is ListOrder.NEWEST
        rows.sort(key=lambda row: row.position, reverse=is_newest)
        if after is not None:
            rows = [row for row in rows if (row.position < after if is_newest else row.position > after)]
        return rows[:limit]

    def _position_of(self, run: Execution, order: ListOrder) -> ListPosition:
        return ListPosition(self._updated_at[run.id] if order is ListOrder.UPDATED else run.created_at, run.id)

    def compare_revisions(
        self, scope: Scope, revs: Mapping[str, int | None], live_max: int, *, causal: bool = False
    ) -> RevisionComparison:
        """Compare revisions; no read lags here."""
        del causal
        records = filter(None, (self._find(scope, each) for each in revs))
        execution_by_id = {record.execution.id: _without_payload(record.execution) for record in records}
        unchanged = [each for each in execution_by_id.values() if each.rev == revs[each.id]]
        return RevisionComparison(
            changed=[each for each in execution_by_id.values() if each.rev != revs[each.id]],
            live=[each for each in unchanged if not each.is_done][:live_max],
            unchanged=len(unchanged),
            missing=[each for each in revs if each not in execution_by_id],
        )

    def read_rows(self, scope: Scope, min_revs: Mapping[str, int]) -> Mapping[str, Execution]:
        """Return executions without input; no read lags here."""
        records = filter(None, (self._find(scope, each) for each in min_revs))
        return {record.execution.id: replace(record.execution, input=b"{}") for record in records}

    def read_many(self, scope: Scope, ids: Collection[str], bytes_max: int) -> RecordBatch:
        """Return complete executions; here each can be read."""
        records: list[ExecutionRecord] = []
        for record in filter(None, (self._find(scope, each) for each in ids)):
            records.append(record)
            bytes_max -= sum(map(len, record.outputs.values()))
            if bytes_max <= 0:
                break
        return RecordBatch(records, [])

    def find_by_idempotency_keys(self, integrator: str, keys: Collection[str]) -> Mapping[str, Execution]:
        """Return the runs that hold idempotency keys, by key."""
        return {key: held for key in keys if (held := self.find_by_idempotency_key(integrator, key)) is not None}

    def insert_all(self, decisions: Sequence[Decision]) -> Collection[int]:
        """Store new runs one by one."""
        outcomes = self.create_many(decisions)
        return [index for index, decision in enumerate(decisions) if outcomes[index] != decision.execution]

    def create_many(self, decisions: Sequence[Decision]) -> Sequence[Execution | BucketError]:
        """Store new runs one by one."""

        def create(decision: Decision) -> Execution | BucketError:
            try:
                return self.create(decision)
            except BucketError as error:
                return error

        return [create(decision) for decision in decisions]

    def _find(self, scope: Scope, execution_id: str) -> ExecutionRecord | None:
        record = self._records.get(execution_id)
        return record if record is not None and scope in {None, record.execution.integrator} else None

    def _find_under_lease(self, lease: Lease) -> ExecutionRecord | None:
        record = self._find(lease.integrator, lease.execution_id)
        return record if record is not None and _may_write(record.execution, lease) else None

    def _find_by_key(self, integrator: str, key: str) -> Execution | None:
        sought = (integrator, key)
        runs = (record.execution for record in self._records.values())
        return next((run for run in runs if run.idempotency and (run.integrator, run.idempotency.key) == sought), None)

    def _is_key_in_force(self, holder: Execution) -> bool:
        return self._clock.now() - holder.created_at < IDEMPOTENCY_KEY_TTL

    def _put(self, execution: Execution) -> None:
        self._records[execution.id] = replace(self._records[execution.id], execution=execution)


def _is_unchanged(current: Execution, before: Execution, decision: Decision) -> bool:
    step = decision.rescued_step
    renewed = step is not None and current.steps[step].due_by != before.steps[step].due_by
    return current.version == before.version and not renewed


def _may_write(execution: Execution, lease: Lease | None) -> bool:
    return lease is None or (lease.step in execution.steps and execution.steps[lease.step].is_running_under(lease))


def _with_events(record: ExecutionRecord, events: Sequence[LogEvent]) -> ExecutionRecord:
    newest = (*record.events, *events)[-LOG_LINES_MAX:]
    return replace(record, events=newest, lines_total=record.lines_total + len(events))


def _without_payload(execution: Execution) -> Execution:
    return replace(execution, input=b"{}", metadata=b"{}")


def _key_of(execution: Execution) -> str | None:
    return None if execution.idempotency is None else execution.idempotency.key


def _matches_query(execution: Execution, updated_at: datetime, query: ListQuery) -> bool:
    return (
        (not query.statuses or execution.status in query.statuses)
        and (query.basket is None or execution.basket.name == query.basket)
        and (query.tag is None or query.tag in execution.tags)
        and (query.request_id is None or execution.request_id == query.request_id)
        and (query.retry_of is None or execution.retry_of == query.retry_of)
        and (query.reference is None or execution.reference == query.reference)
        and (not query.only_dead_letters or execution.dead_letter)
        and (query.idempotency_keys is None or _key_of(execution) in query.idempotency_keys)
        and (query.created_after is None or execution.created_at > query.created_after)
        and (query.created_before is None or execution.created_at < query.created_before)
        and (query.updated_since is None or updated_at >= query.updated_since)
    )
