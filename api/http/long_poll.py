"""Long poll: holds a request until there is a change or its wait time is over. One request, one response, no stream.

Any route can use it: :meth:`LongPoller.hold` gets a function that reads the value and one that says whether the value
is worth a reply; how it waits is hidden from the caller. The number of held requests of a process is limited; they have
places of their own, so that they keep no other request waiting (``threads`` in ``api/gunicorn.py``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import flask

from shared.live.redis_monitor import RedisMonitor
from shared.live.signals.pubsub import LINGER_S, Waiter, WakeupListener
from shared.settings import Settings
from shared.telemetry.request_metrics import count_held_polls

WAIT_MAX_S: Final = 30.0
_RECHECK_MIN_S: Final = 0.05
_TRUSTED_FOR_S: Final = 0.25

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LongPollResult(Generic[T]):
    """The last value read, and whether the wait was granted; a value that was ready at once counts as granted too."""

    value: T
    is_granted: bool


class LongPoller:
    """Long polls of one process: a limited number of permits for requests that wait, woken by pub/sub."""

    def __init__(self, settings: Settings, redis_monitor: RedisMonitor, linger_s: float = LINGER_S) -> None:
        """Create the permits; the pub/sub subscription stays open for ``linger_s`` after the last waiter has left."""
        self._redis_monitor = redis_monitor
        self._is_closing = False
        self._free_permits = threading.Semaphore(settings.held_polls)
        self._wakeup_listener = WakeupListener(
            settings.redis_url, lambda: self._is_closing or not redis_monitor.last.is_connected, linger_s
        )

    def hold(
        self,
        topic: str,
        wait_s: float,
        fetch: Callable[[bytes | None], T],
        is_ready: Callable[[T], bool],
        *,
        fresh_for_s: Callable[[T], float] | None = None,
        is_new: bool = False,
    ) -> LongPollResult[T]:
        """Return the value of ``fetch`` as soon as it ``is_ready``, or when ``wait_s`` (at most 30) are over.

        :func:`shared.live.signals.pubsub.publish_wakeup` publishes to ``topic`` if there may be a change. ``fetch`` is
        called first, after each wake-up with what that carried, if anything, and once more when the time is over; its
        exceptions pass through. If the value can become out of date without a wake-up, ``fresh_for_s`` of the value
        says after how many seconds ``fetch`` is called again. ``is_new`` says that the value cannot be ready yet, so
        that nothing is fetched before the wait begins.

        Returns at once, not granted, if no permit is free, Redis is away or the process is about to end. If Redis
        goes away or the process ends during the wait, it fetches a last time and returns that value.
        """
        ends_at = time.monotonic() + min(wait_s, WAIT_MAX_S)
        if not is_new and is_ready(value := fetch(None)):
            return LongPollResult(value, is_granted=True)
        may_hold = wait_s > 0 and not self._is_closing and self._redis_monitor.last.is_connected
        if not may_hold or not self._free_permits.acquire(blocking=False):
            return LongPollResult(fetch(None) if is_new else value, is_granted=False)
        began = time.perf_counter()
        count_held_polls(1)
        try:
            with self._wakeup_listener.register(topic) as waiter:
                if waiter is None:
                    value = fetch(None)
                    return LongPollResult(value, is_granted=is_ready(value))
                return LongPollResult(_wait_until_ready(waiter, ends_at, fetch, is_ready, fresh_for_s), is_granted=True)
        finally:
            count_held_polls(-1)
            self._free_permits.release()
            if flask.has_request_context():
                flask.g.started_at_s += (
                    time.perf_counter() - began
                )  # the metrics show Bucket's own time, without the wait

    def release_all(self) -> None:
        """Reply to all held requests and hold no more: the process is about to end."""
        self._is_closing = True
        self._wakeup_listener.release_all()


def _wait_until_ready(
    waiter: Waiter,
    ends_at: float,
    fetch: Callable[[bytes | None], T],
    is_ready: Callable[[T], bool],
    fresh_for_s: Callable[[T], float] | None,
) -> T:
    while True:
        is_last = waiter.is_released or time.monotonic() >= ends_at
        # After the registration: every later change wakes the waiter.
        value = fetch(waiter.take_carried())
        if is_last or is_ready(value):
            return value
        # Most waits are short, and how long the value can be trusted costs a round trip.
        if waiter.wait(min(max(ends_at - time.monotonic(), 0), _TRUSTED_FOR_S)):
            continue
        left_s = ends_at - time.monotonic()
        if fresh_for_s is not None and left_s > 0:
            left_s = min(left_s, max(fresh_for_s(value), _RECHECK_MIN_S))
        waiter.wait(max(left_s, 0))
