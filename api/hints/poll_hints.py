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

from api.hints.poll_schedule import LEAST_S, MOST_S, Timetable
from api.hints.schedule_cache import UNKNOWN
from shared.ids import second_of
from shared.live.duration_stats import agent_key
from shared.live.redis_monitor import Look
from shared.live.render import Head
from shared.live.view_trailer import Mark, Rest, Timing
from shared.queue.message import list_of, lists_of

LEAST_MS: Final = int(LEAST_S * 1_000)
ENOUGH_RUNS: Final = 3
_OF_WAIT: Final = 0.3
_JITTER: Final = 0.05
_EXPIRY_SEEN_S: Final = 0.5
"""After a deadline a reconciler has yet to see that it has passed, which it looks for once a second."""

Expect = Callable[[str], Timetable]


@dataclass(frozen=True, slots=True)
class Hints:
    """Durations and words, never dates: nobody has to compare clocks."""

    poll_after_ms: int | None
    waiting_for: Mapping[str, Any] | None

    @property
    def retry_after_s(self) -> int | None:
        """``poll_after_ms`` for the header."""
        return None if self.poll_after_ms is None else retry_after_s(self.poll_after_ms)

    @property
    def tail(self) -> bytes:
        """What closes a rendered poll."""
        fields: dict[str, object] = {"waiting_for": self.waiting_for}
        if self.poll_after_ms is not None:
            fields["poll_after_ms"] = self.poll_after_ms
        return b"," + orjson.dumps(fields)[1:]


OVER: Final = Hints(None, None)


def retry_after_s(poll_after_ms: int) -> int:
    """Answer the same for the header ``Retry-After``: whole seconds, rounded up."""
    return math.ceil(poll_after_ms / 1_000)


def hints_for(head: Head, mark: Mark, now: datetime | None, look: Look, expect: Expect) -> Hints:
    """Answer the hints for a run that is not over; ``now`` is the store's time, ``expect`` knows timetables by key."""
    if now is None:
        return Hints(_in_ms(UNKNOWN.next_after(0)), None if mark.rest is None else _waiting(mark.rest.reason))
    made_ms = int(second_of(head.execution_id).timestamp() * 1_000)
    timing = mark.timing or Timing(runs="", started_ms=made_ms, offered_ms=made_ms)
    run = _Run(head.execution_id, timing, int(now.timestamp() * 1_000), look, expect)
    return run.hints(run.until_look_s()) if mark.rest is None else run.resting(mark.rest)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that is not over, at one moment."""

    execution_id: str
    timing: Timing
    now_ms: int
    look: Look
    expect: Expect

    def hints(self, wait_s: float, waiting_for: Mapping[str, Any] | None = None) -> Hints:
        """The hints that follow from when to look at it; at a deadline it is over, whatever its like have taken."""
        return Hints(_in_ms(min(wait_s, self._until_expiry_s())), waiting_for)

    def until_look_s(self) -> float:
        """In how many seconds to look at it where it runs, or is to run from now on."""
        timing = self.timing
        if timing.cancel_ms is not None:
            return UNKNOWN.next_after(self._since_s(timing.cancel_ms))
        if timing.started_ms is None:
            return self._before().next_after(0)
        if timing.again:
            return self._of_agent().next_after(self._since_s(timing.step_ms))
        known = self._of_run()
        agent = self._of_agent() if known.runs < ENOUGH_RUNS else UNKNOWN
        if agent.runs > known.runs:
            return agent.next_after(self._since_s(timing.step_ms))
        return known.next_after(self._since_s(timing.started_ms))

    def resting(self, rest: Rest) -> Hints:
        """The hints while nothing of it runs."""
        first_s = self.until_look_s()
        if rest.until_ms is not None:
            eta_ms = max(0, rest.until_ms - self.now_ms)
            return self.hints(eta_ms / 1_000 + first_s, _waiting(rest.reason, eta_ms=eta_ms))
        waited_s = self._since_s(self.timing.offered_ms)
        patient_s = max(first_s, _OF_WAIT * waited_s)
        if self.look.connected and not self.look.workers:
            return self.hints(patient_s, _waiting("no_worker"))
        position, taken_ms = self._place()
        if taken_ms is not None:
            patient_s = taken_ms / 1_000 + first_s
        elif position is None and self.timing.started_ms is None:
            # Its message has left the list: it is being claimed, or was while this poll was rendered.
            patient_s = self._before().next_after(waited_s)
        return self.hints(patient_s, _waiting("queue", position, taken_ms))

    def _until_expiry_s(self) -> float:
        if self.timing.expires_ms is None:
            return math.inf
        left_s = (self.timing.expires_ms - self.now_ms) / 1_000
        return left_s + _EXPIRY_SEEN_S if left_s > 0 else UNKNOWN.next_after(-left_s)

    def _place(self) -> tuple[int | None, int | None]:
        """How many offers are ahead of its own in its queue, and in how many milliseconds it will probably be taken."""
        queue, offered_ms, lines = self.timing.queue, self.timing.offered_ms, self.look.lines
        if queue is None or offered_ms is None or not self.look.connected or not lines:
            return None, None
        ahead = lines[list_of(queue, self.timing.priority)].ahead_of(self.execution_id, offered_ms)
        if ahead is None:
            return None, None
        of_queue = [lines[name] for name in lists_of(queue)]
        position = ahead + (of_queue[0].length if self.timing.priority else 0)
        per_ms = sum(line.per_ms or 0.0 for line in of_queue)
        return position, round((position + 0.5) / per_ms) if per_ms else None

    def _before(self) -> Timetable:
        """What is known of a run that has not begun: by its basket, or else by the agent of its first step."""
        known = self._of_run()
        agent = self._of_agent() if known.runs < ENOUGH_RUNS else known
        return max(known, agent, key=lambda timetable: timetable.runs)

    def _of_run(self) -> Timetable:
        return self.expect(self.timing.runs) if self.timing.runs else UNKNOWN

    def _of_agent(self) -> Timetable:
        return self.expect(agent_key(self.timing.agent)) if self.timing.agent else UNKNOWN

    def _since_s(self, moment_ms: int | None) -> float:
        return 0.0 if moment_ms is None else max(self.now_ms - moment_ms, 0) / 1_000


def _waiting(reason: str, position: int | None = None, eta_ms: int | None = None) -> dict[str, Any]:
    return {"reason": reason, "position": position, "eta_ms": eta_ms}


def _in_ms(wait_s: float) -> int:
    """A wait as it is told: within its bounds, and later by chance, or a thousand callers would come at once."""
    told_s = wait_s * random.uniform(1, 1 + _JITTER)  # noqa: S311
    return int(min(max(told_s, LEAST_S), MOST_S) * 1_000)
