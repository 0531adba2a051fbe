"""Background threads of an API process: requests only read the values that these threads have fetched.

While no requests come they mostly rest (:class:`api.http.middleware.RequestActivity`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from api.hints.schedule_cache import DurationCache
from api.http.middleware import RequestActivity
from api.store_watcher import StoreWatcher
from api.submission.withdrawals import Withdrawals
from shared.live.redis_monitor import RedisMonitor

_EVERY_S: Final = 0.1
_FIRST_LOOK_MAX_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """What one thread does again and again; ``pause`` waits in between, as a rest of this process may allow."""

    name: str
    work: Callable[[], None]
    pause: Callable[[RequestActivity], None]


def start_background(
    activity: RequestActivity,
    monitor: RedisMonitor,
    *,
    store_watcher: StoreWatcher,
    durations: DurationCache,
    withdrawals: Withdrawals,
    tasks: Iterable[BackgroundTask],
) -> Callable[[], None]:
    """Start the threads that watch the stores, refresh durations and withdraw lost inserts.

    They end with the process; what is returned ends most of them before it.

    Call this after the fork, in the process that serves the requests, before it listens: it returns once MongoDB is
    prepared or is known to be away, so that the first request finds that out. A long build of an index does not hold
    it up.
    """
    has_looked = threading.Event()

    def watch_store() -> None:
        try:
            store_watcher.check()
        finally:
            has_looked.set()

    def refresh_durations() -> None:
        if monitor.last.is_connected:
            durations.refresh()

    def pause_watch() -> None:
        # An outage's end is noticed as soon as ever, and withdrawals wait for it.
        activity.pause(_EVERY_S, may_rest=store_watcher.is_settled)

    def start(name: str, work: Callable[[], None], pause: Callable[[], None]) -> None:
        _start(name, partial(_repeat, activity, work, pause))

    monitor.start()
    start("watch_store", watch_store, pause_watch)
    start("refresh_durations", refresh_durations, lambda: activity.pause(_EVERY_S))
    _start("withdraw_lost", withdrawals.run)
    for task in tasks:
        start(task.name, task.work, partial(task.pause, activity))
    has_looked.wait(_FIRST_LOOK_MAX_S)

    def end() -> None:
        activity.end()
        monitor.stop()

    return end


def _start(name: str, target: Callable[[], None]) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()


def _repeat(activity: RequestActivity, work: Callable[[], None], pause: Callable[[], None]) -> None:
    """Call ``work`` and ``pause`` in turn; go on after any error, because no other thread does this work."""
    while not activity.is_over:
        try:
            work()
        except Exception:  # noqa: BLE001  (logged, and tried again)
            structlog.get_logger().exception("a background thread had an error and continues")
        pause()
