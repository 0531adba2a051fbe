"""What moves between two polls of an unchanged run: when to come back, and what the run waits for."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import orjson

from shared.ids import second_of
from shared.live.pulse import Look
from shared.live.render import Head, Rest
from shared.store.clock import StoreClock

FIRST_MS: Final = 500
LEAST_MS: Final = 250
MOST_MS: Final = 30_000
_OF_AGE: Final = 0.2
_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Hints:
    """Durations and words, never dates: nobody has to compare clocks."""

    poll_after_ms: int | None
    waiting_for: Mapping[str, Any] | None

    @property
    def retry_after_s(self) -> int | None:
        """``poll_after_ms`` for the header: whole seconds, rounded up, at least 1."""
        return None if self.poll_after_ms is None else max(1, math.ceil(self.poll_after_ms / 1_000))

    @property
    def tail(self) -> bytes:
        """What closes a rendered poll."""
        fields: dict[str, object] = {"waiting_for": self.waiting_for}
        if self.poll_after_ms is not None:
            fields["poll_after_ms"] = self.poll_after_ms
        return b"," + orjson.dumps(fields)[1:]


OVER: Final = Hints(None, None)


def hints_for(head: Head, rest: Rest | None, clock: StoreClock, look: Look) -> Hints:
    """Answer the hints for a run: a fifth of its age until the next poll, so that the end is learnt soon enough.

    One that rests until a moment is best polled then.
    """
    if head.done:
        return OVER
    now = clock.glance()
    if rest is None or now is None:
        age = timedelta(0) if now is None else max(now - second_of(head.execution_id), timedelta(0))
        return Hints(poll_after_ms(age), None if rest is None else _waiting(rest.reason))
    if rest.until_ms is not None:
        eta_ms = max(0, rest.until_ms - int(now.timestamp() * 1_000))
        return Hints(min(max(eta_ms, LEAST_MS), MOST_MS), _waiting(rest.reason, eta_ms))
    age = max(now - second_of(head.execution_id), timedelta(0))
    return Hints(poll_after_ms(age), _waiting("queue" if look.workers or not look.connected else "no_worker"))


def _waiting(reason: str, eta_ms: int | None = None) -> dict[str, Any]:
    return {"reason": reason, "position": None, "eta_ms": eta_ms}


def poll_after_ms(age: timedelta) -> int:
    """Answer when to poll again, with jitter, or a thousand callers would come at once."""
    wanted = age / timedelta(milliseconds=1) * _OF_AGE * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
    return int(min(max(wanted, LEAST_MS), MOST_MS))
