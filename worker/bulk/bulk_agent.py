"""The engine's own agent for bulk actions: counts the matching runs, then acts on them, page by page.

Before a page of runs is begun, its ids are stored in a checkpoint, with the counts so far. A worker that goes on after
a death does the runs of that page again: what one action does to a run a second time changes nothing, and is counted as
the first was (``RunActions``). So each run is counted once, and no run is retried twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from shared import fault_injection
from shared.bootstrap import Services
from shared.domain.bulk_action import BulkAction, BulkActionKind, parse_bulk_action
from shared.domain.definitions.agent_spec import AgentSpec, Capabilities
from shared.domain.definitions.basket import BULK_AGENT_NAME
from shared.domain.execution import Execution
from shared.domain.list_query import ListPosition
from shared.errors import LeaseLost
from shared.run_actions.matching_runs import list_positions
from shared.store.executions.settle import retry_until_reply
from shared.timestamps import format_rfc3339, parse_rfc3339
from worker.agent_loader import Agent
from worker.bulk.act_on_run import RunActions
from worker.bulk.retry_pacing import wait_for_room
from worker.context import AgentContext

T = TypeVar("T")
PAGE_SIZE: Final = 50
COUNT_PAGE_SIZE: Final = 1_000


class BulkActionStopped(Exception):
    """The action was asked to stop; what was done stays done."""


@dataclass(slots=True)
class BulkState:
    """How far an action has come, as its checkpoint stores it; ``page`` are the runs that are being done."""

    matched: int
    counts: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0, "skipped": 0})
    page: list[str] = field(default_factory=list)
    after_at: str | None = None
    after_id: str = ""

    @property
    def processed(self) -> int:
        """The number of runs that were done, failed or skipped."""
        return sum(self.counts.values())

    @property
    def position(self) -> ListPosition | None:
        """The position of the last run that was taken; None before the first."""
        return None if self.after_at is None else ListPosition(parse_rfc3339(self.after_at), self.after_id)


def bulk_agent(services: Services) -> Agent:
    """Return the engine's own agent for bulk actions; no catalogue lists it, so no caller can run it."""
    spec = AgentSpec(
        name=BULK_AGENT_NAME,
        version="1.0.0",
        description="Cancels, retries, erases or dismisses all runs that match a filter.",
        domains=("engine",),
        entry="bulk_agent:run_bulk_action",
        capabilities=Capabilities(chainable=False, memory_access=False, idempotent=False),
        input_schema={},
        output_schema={},
        sample_input={},
        sample_output={},
    )
    return Agent(spec, partial(run_bulk_action, services))


def run_bulk_action(services: Services, given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Carry out the action that ``given`` describes on the runs of its execution's integrator; return the counts."""
    execution = retry_until_reply(partial(services.store.load, None, ctx.execution_id), lambda: ctx.cancelled)
    if execution is None:
        raise LeaseLost(f"{ctx.execution_id} is gone")
    action = parse_bulk_action(given).bounded_by(execution.created_at)
    return _BulkRun(services, execution, action, ctx).run()


class _BulkRun:
    """One attempt of a bulk action."""

    def __init__(self, services: Services, execution: Execution, action: BulkAction, ctx: AgentContext) -> None:
        self._services = services
        self._integrator = execution.integrator
        self._action = action
        self._ctx = ctx
        self._actions = RunActions(services, execution, action, ctx)

    def run(self) -> dict[str, Any]:
        stored = self._ctx.restore()
        state = BulkState(self._count()) if stored is None else BulkState(**stored)
        if not self._action.is_dry_run:
            self._do_page(state, is_repeat=True)
            while state.processed < state.matched and self._take_page(state):
                self._do_page(state, is_repeat=False)
            # They matched when they were counted, and have changed since.
            state.counts["skipped"] += state.matched - state.processed
        return {"matched": state.matched, **state.counts, "dry_run": self._action.is_dry_run}

    def _count(self) -> int:
        count, after = 0, None
        while count < self._action.limit:
            size = min(COUNT_PAGE_SIZE, self._action.limit - count)
            page = self._try(partial(self._list, size, after))
            count += len(page)
            if len(page) < size:
                break
            after = page[-1]
            self._ctx.progress(0, f"{count} counted")
        return count

    def _take_page(self, state: BulkState) -> bool:
        """Take the next runs and store which they are, with the counts; return whether there are any."""
        size = min(PAGE_SIZE, state.matched - state.processed)
        page = self._try(partial(self._list, size, state.position))
        if page:
            state.page = [position.id for position in page]
            state.after_at, state.after_id = format_rfc3339(page[-1].at), page[-1].id
            self._ctx.checkpoint(asdict(state))
        return bool(page)

    def _list(self, size: int, after: ListPosition | None) -> Sequence[ListPosition]:
        return list_positions(self._services.database, self._integrator, self._action.query, size, after)

    def _do_page(self, state: BulkState, *, is_repeat: bool) -> None:
        if state.page and self._action.kind is BulkActionKind.RETRY:
            wait_for_room(self._services, self._ctx, self._check_not_stopped)
        for execution_id in state.page:
            outcome = self._try(partial(self._actions.act, execution_id, is_repeat=is_repeat))
            state.counts[outcome] += 1
            fault_injection.reach("worker.bulk_run_done")
            self._ctx.progress(state.processed / state.matched, _text_of(state.counts, state.matched))
        state.page = []

    def _try(self, operation: Callable[[], T]) -> T:
        """Repeat an operation until the stores reply to it, or the action is asked to stop."""
        self._check_not_stopped()
        return retry_until_reply(operation, lambda: self._ctx.cancelled)

    def _check_not_stopped(self) -> None:
        if self._ctx.cancelled:
            raise BulkActionStopped("the bulk action was asked to stop")


def _text_of(counts: Mapping[str, int], matched: int) -> str:
    return f"{counts['done']} done, {counts['failed']} failed, {counts['skipped']} skipped of {matched}"
