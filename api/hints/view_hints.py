"""Adds the poll hints of this moment to a rendered view: when to poll again, and what the run waits for."""

from __future__ import annotations

from dataclasses import dataclass

from api.hints.poll_hints import NO_HINTS, PollHints, compute_hints
from api.hints.schedule_cache import DurationCache
from shared.domain.execution import Execution
from shared.live.redis_monitor import RedisMonitor
from shared.live.render import ViewHeader, parse_header
from shared.live.view_trailer import Trailer, split_trailer, trailer_of
from shared.store.server_clock import ServerClock


@dataclass(frozen=True, slots=True)
class HintedView:
    """A rendered view without its trailer, and the hints of this moment."""

    head: ViewHeader
    body: bytes
    hints: PollHints

    @property
    def json(self) -> bytes:
        """The view with its hints, as a caller gets it."""
        return self.body + self.hints.json_suffix


class ViewHints:
    """Computes the poll hints of one process from the data of its background threads."""

    def __init__(self, clock: ServerClock, monitor: RedisMonitor, durations: DurationCache) -> None:
        self._clock = clock
        self._monitor = monitor
        self._durations = durations

    def add_to(self, view: bytes) -> HintedView:
        """Return a rendered view with the hints of this moment."""
        head = parse_header(view)
        body, trailer = split_trailer(view)
        return HintedView(head, body, self._hints(head, trailer))

    def of_execution(self, run: Execution) -> PollHints:
        """Return the hints of a run that was not rendered."""
        return self._hints(ViewHeader(run.id, str(run.status), run.is_done, run.rev), trailer_of(run))

    def _hints(self, head: ViewHeader, trailer: Trailer) -> PollHints:
        if head.is_done:
            return NO_HINTS
        return compute_hints(head, trailer, self._clock.now_or_none(), self._monitor.last, self._durations.get)
