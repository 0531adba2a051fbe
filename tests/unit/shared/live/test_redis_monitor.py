"""A look at Redis that fails in no way foreseen is a Redis that is away, until the next look."""

from __future__ import annotations

from shared.live.redis_monitor import RedisMonitor, RedisSnapshot
from tests.waiting import wait_until


class Stumbling(RedisMonitor):
    """A pulse whose looks fail as long as it is told so."""

    stumbles = False

    def take_snapshot(self) -> RedisSnapshot:
        if self.stumbles:
            raise LookupError("of no kind that a look knows")
        return RedisSnapshot(is_connected=True)


def test_a_look_that_fails_unforeseen_does_not_freeze_what_is_known() -> None:
    pulse = Stumbling("redis://127.0.0.1:1")
    pulse.start()
    try:
        for stumbles in (False, True, False):
            pulse.stumbles = stumbles
            wait_until(lambda: pulse.last.is_connected is not pulse.stumbles, what="the next look is known")
    finally:
        pulse.stop()
