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

CHANNEL: Final = "wakes"
FEED: Final = "feed"
"""The topic of those that wait for the change feed."""
LINGER_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.1
_HEARD_WITHIN_S: Final = 0.5


def wake(pipe: Any, topic: str) -> None:
    """Append to ``pipe`` what wakes those that wait for ``topic``: an execution's id, or any word without a space."""
    pipe.publish(CHANNEL, topic)


class Waiter:
    """One that waits for a topic; ``is_over`` once nothing would wake it any more."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self.is_over = False

    def wait(self, seconds: float) -> None:
        """Return when it is woken, at the latest after ``seconds``; what woke it before counts."""
        self._woken.wait(seconds)
        self._woken.clear()

    def wake(self) -> None:
        """Have it look."""
        self._woken.set()

    def end(self) -> None:
        """Have it look a last time."""
        self.is_over = True
        self._woken.set()


class Wakes:
    """One process's ear for changes.

    Its thread and its connection live while somebody waits and ``linger_s`` longer. Where Redis is lost, which
    ``is_away`` tells of one that merely stands still, everybody is woken for a last look.
    """

    def __init__(self, url: str, is_away: Callable[[], bool], linger_s: float = LINGER_S) -> None:
        self._url = url
        self._is_away = is_away
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._waiting: dict[str, set[Waiter]] = {}
        self._listens: threading.Event | None = None  # of the thread that runs: set once it hears

    @contextmanager
    def waiting(self, topic: str) -> Iterator[Waiter | None]:
        """Register one that waits for ``topic`` while the block runs; None where Redis is away: nothing would wake it.

        Whoever looks after this was entered, and then waits, misses no change.
        """
        waiter = Waiter()
        with self._lock:
            self._waiting.setdefault(topic, set()).add(waiter)
            listens = self._listens or self._begin()
        try:
            heard = listens is not None and listens.wait(_HEARD_WITHIN_S) and not waiter.is_over
            yield waiter if heard else None
        finally:
            with self._lock:
                others = self._waiting[topic]
                others.discard(waiter)
                if not others:
                    del self._waiting[topic]

    def _begin(self) -> threading.Event | None:
        """Begin to listen; None where the machine has no thread left: the next one tries again."""
        listens = threading.Event()
        try:
            threading.Thread(target=self._listen, args=(listens,), name="wakes", daemon=True).start()
        except RuntimeError as full:
            structlog.get_logger().warning("wake-ups are not heard", reason=str(full))
            return None
        self._listens = listens
        return listens

    def end_all(self) -> None:
        """Have everybody look a last time."""
        with self._lock:
            self._end_all()

    def _listen(self, listens: threading.Event) -> None:
        """Pass on what is published until nobody has waited for a while, or Redis is lost."""
        try:
            with closing(connect(self._url, connections_max=1)) as client, closing(client.pubsub()) as ear:  # type: ignore[no-untyped-call]
                ear.subscribe(CHANNEL)
                self._pass_on(ear, listens)
        except redis.RedisError as away:
            structlog.get_logger().warning("wake-ups are not heard", reason=str(away))
        finally:
            with self._lock:
                if self._listens is listens:
                    self._listens = None
                    self._end_all()
            listens.set()  # who waited for the subscription finds itself ended

    def _pass_on(self, ear: Any, listens: threading.Event) -> None:
        wanted_at = time.monotonic()
        while not self._is_away():
            message = ear.get_message(timeout=_LOOK_EVERY_S)
            if message is not None and message["type"] == "subscribe":
                listens.set()
            with self._lock:
                if message is not None and message["type"] == "message":
                    self._wake(message["data"].decode())
                if self._waiting:
                    wanted_at = time.monotonic()
                elif time.monotonic() - wanted_at > self._linger_s:
                    self._listens = None  # whoever comes now starts another thread
                    return

    def _wake(self, topic: str) -> None:
        for waiter in self._waiting.get(topic, ()):
            waiter.wake()

    def _end_all(self) -> None:
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.end()
