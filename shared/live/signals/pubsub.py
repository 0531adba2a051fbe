"""Pub/sub wake-ups: wakes held polls (long poll) on a change, by one Redis subscription a process.

The subscription exists only while there are waiters. A wake-up names a topic; that of a run that has ended may carry
its final view, which spares the waiter a read. After any other the waiter reads the state itself. A lost wake-up costs
time only, because every wait has a time limit and ends with a read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any, Final

import redis
import structlog

from shared.live.redis_client import connect

WAKEUP_CHANNEL: Final = "wakes"
FEED_TOPIC: Final = "feed"
"""The topic for waiters on the change feed."""
LINGER_S: Final = 5.0
_POLL_EVERY_S: Final = 0.1
_SUBSCRIBE_TIMEOUT_S: Final = 0.5


def publish_wakeup(pipe: Any, topic: str) -> None:
    """Append to ``pipe`` the command that wakes the waiters on ``topic``: an execution's id, or a word (no spaces)."""
    pipe.publish(WAKEUP_CHANNEL, topic)


class Waiter:
    """A waiter on one topic; ``is_released`` is true once no wake-up can come any more."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self._carried: bytes | None = None
        self.is_released = False

    def wait(self, seconds: float) -> bool:
        """Wait until it is woken, at most ``seconds``; return whether it was woken, also before the call."""
        is_woken = self._woken.wait(seconds)
        self._woken.clear()
        return is_woken

    def take_carried(self) -> bytes | None:
        """Return what the last wake-up carried, once; None if it carried nothing."""
        carried, self._carried = self._carried, None
        return carried

    def wake(self, carried: bytes | None = None) -> None:
        """Wake it, so that it reads the state, or takes what the wake-up ``carried``."""
        self._carried = carried
        self._woken.set()

    def release(self) -> None:
        """Wake it for a last read of the state: no further wake-up follows."""
        self.is_released = True
        self._woken.set()


class WakeupListener:
    """Subscriber to the wake-up channel, one for each process.

    Its thread and connection live while there are waiters, and ``linger_s`` longer. If the connection to Redis is lost,
    or ``is_away`` reports that Redis hangs, all waiters are released for a last read.
    """

    def __init__(self, url: str, is_away: Callable[[], bool], linger_s: float = LINGER_S) -> None:
        self._url = url
        self._is_away = is_away
        self._linger_s = linger_s
        self._lock = threading.RLock()  # _listen calls release_all while it holds it
        self._waiters: dict[str, set[Waiter]] = {}
        self._subscribed: threading.Event | None = None  # of the running thread: set when it is subscribed

    @contextmanager
    def register(self, topic: str) -> Iterator[Waiter | None]:
        """Register a waiter on ``topic`` while the block runs; None if Redis is away, since nothing would wake it.

        A caller that first enters the block, then reads the state and then waits, misses no change.
        """
        waiter = Waiter()
        with self._lock:
            self._waiters.setdefault(topic, set()).add(waiter)
            subscribed = self._subscribed or self._start_thread()
        try:
            is_subscribed = subscribed is not None and subscribed.wait(_SUBSCRIBE_TIMEOUT_S) and not waiter.is_released
            yield waiter if is_subscribed else None
        finally:
            with self._lock:
                waiters = self._waiters[topic]
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[topic]

    def _start_thread(self) -> threading.Event | None:
        """Start the thread that listens; None if the machine can start no thread: the next waiter tries again."""
        subscribed = threading.Event()
        try:
            threading.Thread(target=self._listen, args=(subscribed,), name="pubsub", daemon=True).start()
        except RuntimeError as error:
            structlog.get_logger().warning("no thread for wake-ups could be started", reason=str(error))
            return None
        self._subscribed = subscribed
        return subscribed

    def release_all(self) -> None:
        """Release all waiters for a last read of the state."""
        with self._lock:
            for waiter in chain.from_iterable(self._waiters.values()):
                waiter.release()

    def _listen(self, subscribed: threading.Event) -> None:
        """Subscribe and dispatch wake-ups until there has been no waiter for ``linger_s``, or Redis is lost."""
        try:
            with closing(connect(self._url, connections_max=1)) as client, closing(client.pubsub()) as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(WAKEUP_CHANNEL)
                self._dispatch(subscription, subscribed)
        except redis.RedisError as error:
            structlog.get_logger().warning("Redis is away: wake-ups are not received", reason=str(error))
        finally:
            with self._lock:
                if self._subscribed is subscribed:
                    self._subscribed = None
                    self.release_all()
            subscribed.set()  # a waiter that still waits for the subscription finds itself released

    def _dispatch(self, subscription: Any, subscribed: threading.Event) -> None:
        last_waiter_at = time.monotonic()
        while not self._is_away():
            message = subscription.get_message(timeout=_POLL_EVERY_S)
            if message is not None and message["type"] == "subscribe":
                subscribed.set()
            with self._lock:
                if message is not None and message["type"] == "message":
                    topic, _, carried = message["data"].partition(b" ")
                    for waiter in self._waiters.get(topic.decode(), ()):
                        waiter.wake(carried or None)
                if self._waiters:
                    last_waiter_at = time.monotonic()
                elif time.monotonic() - last_waiter_at > self._linger_s:
                    self._subscribed = None  # the next waiter starts another thread
                    return
