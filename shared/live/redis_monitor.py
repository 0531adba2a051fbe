"""Looks at Redis ten times a second, so that no request has to: is it there, how much waits, who works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import redis
import structlog

from shared.live import worker_presence
from shared.live.redis_client import connect
from shared.queue.dequeue import UnreadableMessage, decode_message
from shared.queue.estimates import OldestMessage, QueueHistory, QueueSnapshot
from shared.queue.message import QUEUES, list_keys

MONITOR_PERIOD_S: Final = 0.1
TIMEOUT_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class RedisSnapshot:
    """What a look at Redis saw: ``backlog`` counts waiting messages, ``workers`` those with a mark.

    ``lines`` are the lists of messages by name; none if the store's time is not known.
    """

    is_connected: bool = False
    backlog: int = 0
    workers: int = 0
    queues: Mapping[str, QueueSnapshot] = field(default_factory=dict)


class RedisMonitor:
    """One process's look at Redis; an outage is seen within period and timeout, less than half a second."""

    def __init__(self, url: str, now: Callable[[], datetime | None] = lambda: None) -> None:
        """``now`` is the store's time, or None where it was never read; it must not wait."""
        self._now = now
        self._histories = {name: QueueHistory() for queue in QUEUES for name in list_keys(queue)}
        self._redis = connect(url, timeout_s=TIMEOUT_S, connections_max=2)
        self._stop = threading.Event()
        self._looked = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._last = RedisSnapshot()

    def start(self) -> None:
        """Begin to look; to be called in the process that wants to know, after any fork."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    @property
    def last(self) -> RedisSnapshot:
        """What the last look saw; waits for the first one."""
        if not self._looked.is_set():  # asked several times a request, and nearly always set
            self._looked.wait(timeout=1)
        return self._last

    def take_snapshot(self) -> RedisSnapshot:
        """Look now."""
        pipe = self._redis.pipeline(transaction=False)
        worker_presence.count_workers(pipe)
        for name in self._histories:
            pipe.llen(name)
            pipe.lindex(name, -1)
        try:
            marks, *waiting = pipe.execute()
        except redis.RedisError as away:
            if self._last.is_connected:
                structlog.get_logger().warning("Redis is away", reason=str(away))
            return RedisSnapshot()
        lengths, oldest = waiting[::2], waiting[1::2]
        return RedisSnapshot(True, sum(lengths), workers=marks, queues=self._observe_queues(lengths, oldest))

    def _observe_queues(self, lengths: Sequence[int], oldest: Sequence[Any]) -> Mapping[str, QueueSnapshot]:
        now = self._now()
        if now is None:
            return {}
        now_ms = int(now.timestamp() * 1_000)
        looks = zip(self._histories.items(), lengths, oldest, strict=True)
        return {name: flow.observe(now_ms, length, _decode_oldest(raw)) for (name, flow), length, raw in looks}

    def _run(self) -> None:
        while True:
            try:
                self._last = self.take_snapshot()
            except Exception:  # noqa: BLE001  (it must go on: nothing else looks)
                structlog.get_logger().exception("a look at Redis failed")
                self._last = RedisSnapshot()
            self._looked.set()
            if self._stop.wait(MONITOR_PERIOD_S):
                return


def _decode_oldest(raw: Any) -> OldestMessage | None:
    """What a list's oldest message says; None where there is none, or none that can be read."""
    if raw is None:
        return None
    try:
        bell = decode_message(raw)
    except UnreadableMessage:
        return None
    return OldestMessage(bell.execution_id, int(bell.offered_at.timestamp() * 1_000))
