"""Holds a request until there is news for it, or its time is up: still one question and one answer, never a stream.

For whichever route wants it: :meth:`Holder.hold` is handed how to look and what counts as news, and nothing of how it
waits concerns the caller. A request that is held costs a thread, so their number is bounded, and half of a process's
threads are never held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import flask

from shared.live.pubsub import LINGER_S, Waiter, WakeupListener
from shared.live.redis_monitor import RedisMonitor
from shared.settings import Settings

WAIT_MAX_S: Final = 30.0
_RECHECK_MIN_S: Final = 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LongPollResult(Generic[T]):
    """What was seen last, and whether the wish to wait was granted: news at once grants it too."""

    value: T
    is_granted: bool


class LongPoller:
    """One process's places for requests that wait."""

    def __init__(self, settings: Settings, redis_monitor: RedisMonitor, linger_s: float = LINGER_S) -> None:
        """The subscription stays ``linger_s`` longer than somebody waits."""
        self._redis_monitor = redis_monitor
        self._is_closing = False
        self._free_slots = threading.Semaphore(min(settings.held_polls, settings.api_threads // 2))
        self._wakeup_listener = WakeupListener(
            settings.redis_url, lambda: self._is_closing or not redis_monitor.last.is_connected, linger_s
        )

    def hold(
        self,
        topic: str,
        wait_s: float,
        fetch: Callable[[], T],
        is_ready: Callable[[T], bool],
        *,
        fresh_for_s: Callable[[T], float] | None = None,
    ) -> LongPollResult[T]:
        """Answer what ``look`` sees as soon as ``is_news`` is true of it, or when ``wait_s`` (at most 30) are over.

        ``topic`` is what :func:`shared.live.pubsub.wake` names when there may be news. ``look`` is asked first, after
        each wake-up, and once more when the time is up; what it raises is raised. It is asked again after
        ``good_for_s`` of what it saw, too, where that may be out of date without a wake-up.

        It answers at once, and not granted, where all places are taken, Redis is away or the process is about to end;
        where either happens meanwhile it looks a last time and answers that.
        """
        ends_at = time.monotonic() + min(wait_s, WAIT_MAX_S)
        seen = fetch()
        if is_ready(seen):
            return LongPollResult(seen, is_granted=True)
        if wait_s <= 0 or not self._may_hold() or not self._free_slots.acquire(blocking=False):
            return LongPollResult(seen, is_granted=False)
        began = time.perf_counter()
        try:
            with self._wakeup_listener.register(topic) as waiter:
                if waiter is None:
                    seen = fetch()
                    return LongPollResult(seen, is_granted=is_ready(seen))
                return LongPollResult(_wait_until_ready(waiter, ends_at, fetch, is_ready, fresh_for_s), is_granted=True)
        finally:
            self._free_slots.release()
            if flask.has_request_context():
                flask.g.begun += time.perf_counter() - began  # the figures tell how long Bucket took, not the caller

    def release_all(self) -> None:
        """Answer all that are held, and hold none any more: the process is about to end."""
        self._is_closing = True
        self._wakeup_listener.release_all()

    def _may_hold(self) -> bool:
        return not self._is_closing and self._redis_monitor.last.is_connected


def _wait_until_ready(
    waiter: Waiter,
    ends_at: float,
    fetch: Callable[[], T],
    is_ready: Callable[[T], bool],
    fresh_for_s: Callable[[T], float] | None,
) -> T:
    while True:
        is_last = waiter.is_released or time.monotonic() >= ends_at
        seen = fetch()  # after it was registered: whatever changes from here on wakes it
        if is_last or is_ready(seen):
            return seen
        left_s = ends_at - time.monotonic()
        if fresh_for_s is not None:
            left_s = min(left_s, max(fresh_for_s(seen), _RECHECK_MIN_S))
        waiter.wait(max(left_s, 0))
