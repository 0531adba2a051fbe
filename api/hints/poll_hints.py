"""What moves between two polls of an unchanged run: when to come back, and what the run waits for.

A run that runs is looked at when its timetable says, by its age since its first claim; one whose step is at a later
attempt, or of whose basket little is known, by what is known of the agent. One that waits for a worker is looked at
when it has probably been taken and the first look at such a run would be due. None is looked at later than right after
its deadline.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from api.hints.poll_schedule import POLL_DELAY_MAX_S, POLL_DELAY_MIN_S, PollSchedule
from api.hints.schedule_cache import PRIOR_SCHEDULE
from shared.ids import created_at_of
from shared.live.duration_stats import agent_samples_key
from shared.live.redis_monitor import RedisSnapshot
from shared.live.render import ViewHeader
from shared.live.view_trailer import RunTiming, Trailer, WaitState
from shared.queue.message import list_key, list_keys

POLL_AFTER_MIN_MS: Final = int(POLL_DELAY_MIN_S * 1_000)
RELIABLE_RUNS_MIN: Final = 3
_WAITED_SHARE: Final = 0.3
_JITTER: Final = 0.05
_EXPIRY_DELAY_S: Final = 0.5
"""After a deadline a reconciler has yet to see that it has passed, which it looks for once a second."""

ScheduleLookup = Callable[[str], PollSchedule]


@dataclass(frozen=True, slots=True)
class PollHints:
    """Durations and words, never dates: nobody has to compare clocks."""

    poll_after_ms: int | None
    waiting_for: Mapping[str, Any] | None

    @property
    def retry_after_s(self) -> int | None:
        """``poll_after_ms`` for the header."""
        return None if self.poll_after_ms is None else retry_after_s(self.poll_after_ms)

    @property
    def json_suffix(self) -> bytes:
        """What closes a rendered poll."""
        fields: dict[str, object] = {"waiting_for": self.waiting_for}
        if self.poll_after_ms is not None:
            fields["poll_after_ms"] = self.poll_after_ms
        return b"," + orjson.dumps(fields)[1:]


NO_HINTS: Final = PollHints(None, None)


def retry_after_s(poll_after_ms: int) -> int:
    """Answer the same for the header ``Retry-After``: whole seconds, rounded up."""
    return math.ceil(poll_after_ms / 1_000)


def compute_hints(
    head: ViewHeader, trailer: Trailer, now: datetime | None, redis_snapshot: RedisSnapshot, schedule_of: ScheduleLookup
) -> PollHints:
    """Answer the hints for a run that is not over; ``now`` is the store's time, ``expect`` knows timetables by key."""
    if now is None:
        return PollHints(
            _jittered_ms(PRIOR_SCHEDULE.next_delay_s(0)),
            None if trailer.wait_state is None else _waiting_for(trailer.wait_state.reason),
        )
    made_ms = int(created_at_of(head.execution_id).timestamp() * 1_000)
    timing = trailer.timing or RunTiming(runs="", started_ms=made_ms, offered_ms=made_ms)
    run = _LiveRun(head.execution_id, timing, int(now.timestamp() * 1_000), redis_snapshot, schedule_of)
    return run.hints(run.next_poll_s()) if trailer.wait_state is None else run.while_waiting(trailer.wait_state)


@dataclass(frozen=True, slots=True)
class _LiveRun:
    """A run that is not over, at one moment."""

    execution_id: str
    timing: RunTiming
    now_ms: int
    redis_snapshot: RedisSnapshot
    schedule_of: ScheduleLookup

    def hints(self, wait_s: float, waiting_for: Mapping[str, Any] | None = None) -> PollHints:
        """The hints that follow from when to look at it; at a deadline it is over, whatever its like have taken."""
        return PollHints(_jittered_ms(min(wait_s, self._until_expiry_s())), waiting_for)

    def next_poll_s(self) -> float:
        """In how many seconds to look at it where it runs, or is to run from now on."""
        timing = self.timing
        if timing.cancel_ms is not None:
            return PRIOR_SCHEDULE.next_delay_s(self._elapsed_s(timing.cancel_ms))
        if timing.started_ms is None:
            return self._schedule_before_start().next_delay_s(0)
        if timing.again:
            return self._schedule_of_agent().next_delay_s(self._elapsed_s(timing.step_ms))
        known = self._schedule_of_run()
        agent = self._schedule_of_agent() if known.sample_size < RELIABLE_RUNS_MIN else PRIOR_SCHEDULE
        if agent.sample_size > known.sample_size:
            return agent.next_delay_s(self._elapsed_s(timing.step_ms))
        return known.next_delay_s(self._elapsed_s(timing.started_ms))

    def while_waiting(self, wait_state: WaitState) -> PollHints:
        """The hints while nothing of it runs."""
        first_s = self.next_poll_s()
        if wait_state.until_ms is not None:
            eta_ms = max(0, wait_state.until_ms - self.now_ms)
            return self.hints(eta_ms / 1_000 + first_s, _waiting_for(wait_state.reason, eta_ms=eta_ms))
        waited_s = self._elapsed_s(self.timing.offered_ms)
        patient_s = max(first_s, _WAITED_SHARE * waited_s)
        if self.redis_snapshot.is_connected and not self.redis_snapshot.workers:
            return self.hints(patient_s, _waiting_for("no_worker"))
        position, taken_ms = self._queue_position()
        if taken_ms is not None:
            patient_s = taken_ms / 1_000 + first_s
        elif position is None and self.timing.started_ms is None:
            # Its message has left the list: it is being claimed, or was while this poll was rendered.
            patient_s = self._schedule_before_start().next_delay_s(waited_s)
        return self.hints(patient_s, _waiting_for("queue", position, taken_ms))

    def _until_expiry_s(self) -> float:
        if self.timing.expires_ms is None:
            return math.inf
        left_s = (self.timing.expires_ms - self.now_ms) / 1_000
        return left_s + _EXPIRY_DELAY_S if left_s > 0 else PRIOR_SCHEDULE.next_delay_s(-left_s)

    def _queue_position(self) -> tuple[int | None, int | None]:
        """How many offers are ahead of its own in its queue, and in how many milliseconds it will probably be taken."""
        queue, offered_ms, lines = self.timing.queue, self.timing.offered_ms, self.redis_snapshot.queues
        if queue is None or offered_ms is None or not self.redis_snapshot.is_connected or not lines:
            return None, None
        ahead = lines[list_key(queue, self.timing.priority)].messages_ahead(self.execution_id, offered_ms)
        if ahead is None:
            return None, None
        of_queue = [lines[name] for name in list_keys(queue)]
        position = ahead + (of_queue[0].length if self.timing.priority else 0)
        per_ms = sum(line.drain_rate_per_ms or 0.0 for line in of_queue)
        return position, round((position + 0.5) / per_ms) if per_ms else None

    def _schedule_before_start(self) -> PollSchedule:
        """What is known of a run that has not begun: by its basket, or else by the agent of its first step."""
        known = self._schedule_of_run()
        agent = self._schedule_of_agent() if known.sample_size < RELIABLE_RUNS_MIN else known
        return max(known, agent, key=lambda timetable: timetable.sample_size)

    def _schedule_of_run(self) -> PollSchedule:
        return self.schedule_of(self.timing.runs) if self.timing.runs else PRIOR_SCHEDULE

    def _schedule_of_agent(self) -> PollSchedule:
        return self.schedule_of(agent_samples_key(self.timing.agent)) if self.timing.agent else PRIOR_SCHEDULE

    def _elapsed_s(self, moment_ms: int | None) -> float:
        return 0.0 if moment_ms is None else max(self.now_ms - moment_ms, 0) / 1_000


def _waiting_for(reason: str, position: int | None = None, eta_ms: int | None = None) -> dict[str, Any]:
    return {"reason": reason, "position": position, "eta_ms": eta_ms}


def _jittered_ms(wait_s: float) -> int:
    """A wait as it is told: within its bounds, and later by chance, or a thousand callers would come at once."""
    told_s = wait_s * random.uniform(1, 1 + _JITTER)  # noqa: S311
    return int(min(max(told_s, POLL_DELAY_MIN_S), POLL_DELAY_MAX_S) * 1_000)
