"""A look at Redis that fails in no way foreseen is a Redis that is away, until the next look."""

from __future__ import annotations

from shared.live.redis_monitor import Look, Pulse
from tests.waiting import wait_until


class Stumbling(Pulse):
    """A pulse whose looks fail as long as it is told so."""

    stumbles = False

    def look(self) -> Look:
        if self.stumbles:
            raise LookupError("of no kind that a look knows")
        return Look(connected=True)


def test_a_look_that_fails_unforeseen_does_not_freeze_what_is_known() -> None:
    pulse = Stumbling("redis://127.0.0.1:1")
    pulse.start()
    try:
        for stumbles in (False, True, False):
            pulse.stumbles = stumbles
            wait_until(lambda: pulse.last.connected is not pulse.stumbles, what="the next look is known")
    finally:
        pulse.stop()
