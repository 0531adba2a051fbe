"""Wakes who waits for a change: one subscription a process, and only while somebody waits.

A wake-up is a hint and bears nothing to be believed: who is woken looks for itself. One that is lost costs time, for
every wait is bounded and ends with a look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import redis
import structlog

from shared.live.redis_client import connect

WAKEUP_CHANNEL: Final = "wakes"
FEED_TOPIC: Final = "feed"
"""The topic of those that wait for the change feed."""
LINGER_S: Final = 5.0
_POLL_EVERY_S: Final = 0.1
_SUBSCRIBE_TIMEOUT_S: Final = 0.5


def publish_wakeup(pipe: Any, topic: str) -> None:
    """Append to ``pipe`` what wakes those that wait for ``topic``: an execution's id, or any word without a space."""
    pipe.publish(WAKEUP_CHANNEL, topic)


class Waiter:
    """One that waits for a topic; ``is_over`` once nothing would wake it any more."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self.is_released = False

    def wait(self, seconds: float) -> None:
        """Return when it is woken, at the latest after ``seconds``; what woke it before counts."""
        self._woken.wait(seconds)
        self._woken.clear()

    def wake(self) -> None:
        """Have it look."""
        self._woken.set()

    def release(self) -> None:
        """Have it look a last time."""
        self.is_released = True
        self._woken.set()


class WakeupListener:
    """One process's ear for changes.

    Its thread and its connection live while somebody waits and ``linger_s`` longer. Where Redis is lost, which
    ``is_away`` tells of one that merely stands still, everybody is woken for a last look.
    """

    def __init__(self, url: str, is_away: Callable[[], bool], linger_s: float = LINGER_S) -> None:
        self._url = url
        self._is_away = is_away
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Waiter]] = {}
        self._subscribed: threading.Event | None = None  # of the thread that runs: set once it hears

    @contextmanager
    def register(self, topic: str) -> Iterator[Waiter | None]:
        """Register one that waits for ``topic`` while the block runs; None where Redis is away: nothing would wake it.

        Whoever looks after this was entered, and then waits, misses no change.
        """
        waiter = Waiter()
        with self._lock:
            self._waiters.setdefault(topic, set()).add(waiter)
            listens = self._subscribed or self._start_thread()
        try:
            heard = listens is not None and listens.wait(_SUBSCRIBE_TIMEOUT_S) and not waiter.is_released
            yield waiter if heard else None
        finally:
            with self._lock:
                others = self._waiters[topic]
                others.discard(waiter)
                if not others:
                    del self._waiters[topic]

    def _start_thread(self) -> threading.Event | None:
        """Begin to listen; None where the machine has no thread left: the next one tries again."""
        listens = threading.Event()
        try:
            threading.Thread(target=self._listen, args=(listens,), name="wakes", daemon=True).start()
        except RuntimeError as full:
            structlog.get_logger().warning("wake-ups are not heard", reason=str(full))
            return None
        self._subscribed = listens
        return listens

    def release_all(self) -> None:
        """Have everybody look a last time."""
        with self._lock:
            self._release_all()

    def _listen(self, listens: threading.Event) -> None:
        """Pass on what is published until nobody has waited for a while, or Redis is lost."""
        try:
            with closing(connect(self._url, connections_max=1)) as client, closing(client.pubsub()) as ear:  # type: ignore[no-untyped-call]
                ear.subscribe(WAKEUP_CHANNEL)
                self._dispatch(ear, listens)
        except redis.RedisError as away:
            structlog.get_logger().warning("wake-ups are not heard", reason=str(away))
        finally:
            with self._lock:
                if self._subscribed is listens:
                    self._subscribed = None
                    self._release_all()
            listens.set()  # who waited for the subscription finds itself ended

    def _dispatch(self, ear: Any, listens: threading.Event) -> None:
        wanted_at = time.monotonic()
        while not self._is_away():
            message = ear.get_message(timeout=_POLL_EVERY_S)
            if message is not None and message["type"] == "subscribe":
                listens.set()
            with self._lock:
                if message is not None and message["type"] == "message":
                    self._wake(message["data"].decode())
                if self._waiters:
                    wanted_at = time.monotonic()
                elif time.monotonic() - wanted_at > self._linger_s:
                    self._subscribed = None  # whoever comes now starts another thread
                    return

    def _wake(self, topic: str) -> None:
        for waiter in self._waiters.get(topic, ()):
            waiter.wake()

    def _release_all(self) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.release()
