"""Redis monitor: after an unforeseen error of a snapshot Redis counts as away, until the next snapshot."""

from __future__ import annotations

from shared.live.redis_monitor import RedisMonitor, RedisSnapshot
from tests.waiting import wait_until


class FailingMonitor(RedisMonitor):
    """A Redis monitor whose snapshots fail as long as ``fails`` is true."""

    fails = False

    def take_snapshot(self) -> RedisSnapshot:
        if self.fails:
            raise LookupError("an error that the monitor does not expect")
        return RedisSnapshot(is_connected=True)


def test_an_unforeseen_error_of_one_snapshot_does_not_stop_the_monitor() -> None:
    monitor = FailingMonitor("redis://127.0.0.1:1")
    monitor.start()
    try:
        for fails in (False, True, False):
            monitor.fails = fails
            wait_until(lambda: monitor.last.is_connected is not monitor.fails, what="the next snapshot is there")
    finally:
        monitor.stop()
