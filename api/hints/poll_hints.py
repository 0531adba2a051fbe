"""Poll interval hints (``poll_after_ms``) and ``waiting_for``: the part of a poll that changes without a revision.

A running run is polled by the poll schedule of its basket, from its age since the first claim. The schedule of the
agent is used if its step is at a later attempt, or if few runs of the basket are known. A run that waits for a worker
is polled when it has probably been claimed, plus the first delay of its schedule. No hint is later than just after the
deadline.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from api.hints.poll_schedule import POLL_DELAY_MAX_S, POLL_DELAY_MIN_S, PollSchedule
from api.hints.schedule_cache import PRIOR_SCHEDULE, DurationCache
from shared.domain.execution import Execution
from shared.ids import created_at_of
from shared.live.duration_stats import agent_samples_key
from shared.live.redis_monitor import RedisMonitor, RedisSnapshot
from shared.live.render import ViewHeader, parse_header
from shared.live.view_trailer import RunTiming, Trailer, WaitState, split_trailer, trailer_of
from shared.queue.message import list_key, list_keys
from shared.store.server_clock import ServerClock
from shared.timestamps import format_rfc3339

POLL_AFTER_MIN_MS: Final = int(POLL_DELAY_MIN_S * 1_000)
RELIABLE_RUNS_MIN: Final = 3
_POLL_SHARE_OF_WAIT: Final = 0.3
_JITTER: Final = 0.05
_EXPIRY_DELAY_S: Final = 0.5
"""After a deadline the reconciler still has to expire the run; it checks once a second."""

ScheduleLookup = Callable[[str], PollSchedule]


@dataclass(frozen=True, slots=True)
class PollHints:
    """The hints of one poll: durations and words, never dates, so that no clocks have to be compared."""

    poll_after_ms: int | None
    waiting_for: Mapping[str, Any] | None

    @property
    def retry_after_s(self) -> int | None:
        """``poll_after_ms`` for the header ``Retry-After``."""
        return None if self.poll_after_ms is None else retry_after_s(self.poll_after_ms)

    @property
    def json_suffix(self) -> bytes:
        """The JSON that completes a rendered view: a comma, the hints and the closing brace."""
        fields: dict[str, object] = {"waiting_for": self.waiting_for}
        if self.poll_after_ms is not None:
            fields["poll_after_ms"] = self.poll_after_ms
        return b"," + orjson.dumps(fields)[1:]


NO_HINTS: Final = PollHints(None, None)


def retry_after_s(poll_after_ms: int) -> int:
    """Return a delay for the header ``Retry-After``: whole seconds, rounded up."""
    return math.ceil(poll_after_ms / 1_000)


def compute_hints(
    head: ViewHeader, trailer: Trailer, now: datetime | None, redis_snapshot: RedisSnapshot, schedule_of: ScheduleLookup
) -> PollHints:
    """Return the hints of a run that is not done.

    ``now`` is the store's time, None if it is not known; ``schedule_of`` returns the poll schedule of a key.
    """
    if now is None:
        return PollHints(
            _jittered_ms(PRIOR_SCHEDULE.next_delay_s(0)),
            None if trailer.wait_state is None else _waiting_for(trailer.wait_state.reason),
        )
    created_ms = int(created_at_of(head.execution_id).timestamp() * 1_000)
    timing = trailer.timing or RunTiming(runs="", started_ms=created_ms, offered_ms=created_ms)
    run = _LiveRun(head.execution_id, timing, int(now.timestamp() * 1_000), redis_snapshot, schedule_of)
    return run.hints(run.next_poll_s()) if trailer.wait_state is None else run.waiting_hints(trailer.wait_state)


@dataclass(frozen=True, slots=True)
class _LiveRun:
    """A run that is not done, at one moment."""

    execution_id: str
    timing: RunTiming
    now_ms: int
    redis_snapshot: RedisSnapshot
    schedule_of: ScheduleLookup

    def hints(self, delay_s: float, waiting_for: Mapping[str, Any] | None = None) -> PollHints:
        """Return the hints for a poll in ``delay_s``, or just after the deadline if that is sooner."""
        return PollHints(_jittered_ms(min(delay_s, self._until_expiry_s())), waiting_for)

    def next_poll_s(self) -> float:
        """Return in how many seconds to poll a run that is running, or is about to begin."""
        timing = self.timing
        if timing.cancel_ms is not None:
            return PRIOR_SCHEDULE.next_delay_s(self._elapsed_s(timing.cancel_ms))
        if timing.started_ms is None:
            return self._schedule_before_start().next_delay_s(0)
        if timing.again:
            return self._schedule_of_agent().next_delay_s(self._elapsed_s(timing.step_ms))
        run_schedule = self._schedule_of_run()
        agent_schedule = self._schedule_of_agent() if run_schedule.sample_size < RELIABLE_RUNS_MIN else PRIOR_SCHEDULE
        if agent_schedule.sample_size > run_schedule.sample_size:
            return agent_schedule.next_delay_s(self._elapsed_s(timing.step_ms))
        return run_schedule.next_delay_s(self._elapsed_s(timing.started_ms))

    def waiting_hints(self, wait_state: WaitState) -> PollHints:
        """Return the hints while no step runs: the run waits for a time, a worker or its place in the queue."""
        first_poll_s = self.next_poll_s()
        if wait_state.until_ms is not None:
            eta_ms = max(0, wait_state.until_ms - self.now_ms)
            return self.hints(eta_ms / 1_000 + first_poll_s, _waiting_for(wait_state.reason, eta_ms=eta_ms))
        waited_s = self._elapsed_s(self.timing.offered_ms)
        delay_s = max(first_poll_s, _POLL_SHARE_OF_WAIT * waited_s)
        if self.redis_snapshot.is_connected and not self.redis_snapshot.workers_of(self.timing.queue):
            return self.hints(delay_s, _waiting_for("no_worker"))
        position, claim_eta_ms = self._queue_position()
        if claim_eta_ms is not None:
            delay_s = claim_eta_ms / 1_000 + first_poll_s
        elif position is None and self.timing.started_ms is None:
            # Its message has left the list: it is being claimed now, or was claimed while this view was rendered.
            delay_s = self._schedule_before_start().next_delay_s(waited_s)
        return self.hints(delay_s, _waiting_for("queue", position, claim_eta_ms))

    def _until_expiry_s(self) -> float:
        if self.timing.expires_ms is None:
            return math.inf
        left_s = (self.timing.expires_ms - self.now_ms) / 1_000
        return left_s + _EXPIRY_DELAY_S if left_s > 0 else PRIOR_SCHEDULE.next_delay_s(-left_s)

    def _queue_position(self) -> tuple[int | None, int | None]:
        """Return the number of offers ahead in the queue, and the milliseconds until the claim by the drain rate."""
        queue, offered_ms, lists = self.timing.queue, self.timing.offered_ms, self.redis_snapshot.queues
        if queue is None or offered_ms is None or not self.redis_snapshot.is_connected or not lists:
            return None, None
        ahead = lists[list_key(queue, self.timing.priority)].messages_ahead(self.execution_id, offered_ms)
        if ahead is None:
            return None, None
        lists_of_queue = [lists[name] for name in list_keys(queue)]
        position = ahead + (lists_of_queue[0].length if self.timing.priority else 0)
        drain_rate_per_ms = sum(line.drain_rate_per_ms or 0.0 for line in lists_of_queue)
        return position, round((position + 0.5) / drain_rate_per_ms) if drain_rate_per_ms else None

    def _schedule_before_start(self) -> PollSchedule:
        """Return the schedule of a run that has not begun: of its basket, or of the agent of its first step."""
        run_schedule = self._schedule_of_run()
        agent_schedule = self._schedule_of_agent() if run_schedule.sample_size < RELIABLE_RUNS_MIN else run_schedule
        return max(run_schedule, agent_schedule, key=lambda schedule: schedule.sample_size)

    def _schedule_of_run(self) -> PollSchedule:
        return self.schedule_of(self.timing.runs) if self.timing.runs else PRIOR_SCHEDULE

    def _schedule_of_agent(self) -> PollSchedule:
        return self.schedule_of(agent_samples_key(self.timing.agent)) if self.timing.agent else PRIOR_SCHEDULE

    def _elapsed_s(self, since_ms: int | None) -> float:
        return 0.0 if since_ms is None else max(self.now_ms - since_ms, 0) / 1_000


def _waiting_for(reason: str, position: int | None = None, eta_ms: int | None = None) -> dict[str, Any]:
    return {"reason": reason, "position": position, "eta_ms": eta_ms}


def _jittered_ms(delay_s: float) -> int:
    """Return a delay within its bounds, with jitter: without it a thousand callers would poll at the same moment."""
    jittered_s = delay_s * random.uniform(1, 1 + _JITTER)  # noqa: S311
    return int(min(max(jittered_s, POLL_DELAY_MIN_S), POLL_DELAY_MAX_S) * 1_000)


@dataclass(frozen=True, slots=True)
class HintedView:
    """A rendered view without its trailer, and the hints of this moment."""

    head: ViewHeader
    body: bytes
    hints: PollHints
    expires_at: str | None = None
    """Until when the run is kept at least; None without retention."""

    @property
    def json(self) -> bytes:
        """The view with its hints, as a caller gets it."""
        suffix = self.hints.json_suffix
        return self.body + (suffix if self.expires_at is None else suffix[:-1] + self._expiry_suffix)

    @property
    def _expiry_suffix(self) -> bytes:
        return b',"expires_at":' + orjson.dumps(self.expires_at) + b"}"


class ViewHints:
    """Computes the poll hints of one process from the data of its background threads."""

    def __init__(
        self, clock: ServerClock, monitor: RedisMonitor, durations: DurationCache, retention_days: int | None = None
    ) -> None:
        """``retention_days`` is for how long runs are kept after their creation; None: for ever."""
        self._retention = None if retention_days is None else timedelta(days=retention_days)
        self._clock = clock
        self._monitor = monitor
        self._durations = durations

    def add_to(self, view: bytes) -> HintedView:
        """Return a rendered view with the hints of this moment."""
        head = parse_header(view)
        body, trailer = split_trailer(view)
        return HintedView(head, body, self._hints(head, trailer), self._expires_at(head.execution_id))

    def of_execution(self, run: Execution) -> PollHints:
        """Return the hints of a run that was not rendered."""
        return self._hints(ViewHeader(run.id, str(run.status), run.is_done, run.rev), trailer_of(run))

    def _expires_at(self, execution_id: str) -> str | None:
        return None if self._retention is None else format_rfc3339(created_at_of(execution_id) + self._retention)

    def _hints(self, head: ViewHeader, trailer: Trailer) -> PollHints:
        if head.is_done:
            return NO_HINTS
        return compute_hints(head, trailer, self._clock.now_or_none(), self._monitor.last, self._durations.get)
