"""Background threads of an API process: requests only read the values that these threads have fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

from api.hints.schedule_cache import DurationCache
from api.http.long_poll import LongPoller
from api.store_watcher import StoreWatcher
from api.submission.withdrawals import Withdrawals
from shared.live.redis_monitor import RedisMonitor

_EVERY_S: Final = 0.1


class Background:
    """Starts and stops the threads that watch the stores, refresh durations and withdraw lost inserts."""

    def __init__(
        self,
        monitor: RedisMonitor,
        store_watcher: StoreWatcher,
        durations: DurationCache,
        withdrawals: Withdrawals,
        long_poller: LongPoller,
    ) -> None:
        self._monitor = monitor
        self._store_watcher = store_watcher
        self._durations = durations
        self._withdrawals = withdrawals
        self._long_poller = long_poller
        self._stop = threading.Event()

    def start(self) -> None:
        """Start all threads; call this after the fork, in the process that serves the requests."""
        self._monitor.start()
        self._start("watch_store", lambda: self._repeat(self._store_watcher.check))
        self._start("refresh_durations", lambda: self._repeat(self._refresh_durations))
        self._start("withdraw_lost", lambda: self._withdrawals.run(self._stop))

    def stop(self) -> None:
        """Stop all threads, and release all long polls."""
        self._stop.set()
        self._long_poller.release_all()
        self._monitor.stop()

    @staticmethod
    def _start(name: str, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=name, daemon=True).start()

    def _repeat(self, work: Callable[[], None]) -> None:
        """Call ``work`` ten times a second; go on after any error, because no other thread does this work."""
        while not self._stop.wait(_EVERY_S):
            try:
                work()
            except Exception:  # noqa: BLE001  (logged, and tried again)
                structlog.get_logger().exception("a background thread had an error and continues")

    def _refresh_durations(self) -> None:
        if self._monitor.last.is_connected:
            self._durations.refresh()
