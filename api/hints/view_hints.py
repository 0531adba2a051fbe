"""Adds the hints of this moment to a rendered view: when to poll again, and what the run waits for."""

from __future__ import annotations

from dataclasses import dataclass

from api.hints.poll_hints import OVER, Hints, hints_for
from api.hints.schedule_cache import Expectations
from shared.domain.execution import Execution
from shared.live.redis_monitor import Pulse
from shared.live.render import Head, head_of
from shared.live.view_trailer import Mark, cut_mark, mark_of
from shared.store.server_clock import StoreClock


@dataclass(frozen=True, slots=True)
class HintedView:
    """A rendered view without its trailer, and the hints of this moment."""

    head: Head
    body: bytes
    hints: Hints

    @property
    def json(self) -> bytes:
        """The view as a caller gets it."""
        return self.body + self.hints.tail


class ViewHints:
    """Computes the hints of one process's polls from what its background threads have learnt."""

    def __init__(self, clock: StoreClock, monitor: Pulse, durations: Expectations) -> None:
        self._clock = clock
        self._monitor = monitor
        self._durations = durations

    def add_to(self, view: bytes) -> HintedView:
        """Return a rendered view with the hints of this moment."""
        head = head_of(view)
        body, mark = cut_mark(view)
        return HintedView(head, body, self._hints(head, mark))

    def of_run(self, run: Execution) -> Hints:
        """Return the hints of a run that is in memory and was not rendered."""
        return self._hints(Head(run.id, str(run.status), run.done, run.rev), mark_of(run))

    def _hints(self, head: Head, mark: Mark) -> Hints:
        if head.done:
            return OVER
        return hints_for(head, mark, self._clock.glance(), self._monitor.last, self._durations.of)
