"""Redis monitor: reads health, backlog (queue depth) and worker presence ten times a second, so no request must.

While no requests come, an API process takes one only now and then, and its next request waits for a new one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import redis
import structlog

from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.definitions.unavailability import Unavailability
from shared.live.presence import worker_presence
from shared.live.presence.presence_entry import WorkerPool, decode_pools
from shared.live.providers.provider_states import ProviderState, decode_states, read_states
from shared.live.redis_client import connect, drop_if_demoted, is_demotion
from shared.queue.dequeue import UnreadableMessage, decode_message
from shared.queue.estimates import OldestMessage, QueueHistory, QueueSnapshot
from shared.queue.message import list_keys
from shared.queue.write_check import check_writable

MONITOR_PERIOD_S: Final = 0.1
TIMEOUT_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class RedisSnapshot:
    """A snapshot of Redis: ``backlog`` is the number of waiting messages, ``workers`` the number of workers present.

    ``pools`` are these workers by the queues that they serve. ``unavailable`` are the agents that each of them cannot
    run, by name; none if no worker is present.

    A Redis that refuses writes (a replica, full, no rights) counts as not connected: no message would reach a worker.
    ``queues`` are the lists of messages by key; empty if the store's time is not known. ``providers`` are those that
    agents called in the last day.
    """

    is_connected: bool = False
    backlog: int = 0
    workers: int = 0
    queues: Mapping[str, QueueSnapshot] = field(default_factory=dict)
    unavailable: Mapping[str, Unavailability] = field(default_factory=dict)
    providers: tuple[ProviderState, ...] = ()
    pools: tuple[WorkerPool, ...] = ()

    def workers_of(self, queue: str | None) -> int:
        """Return the number of workers that may take messages of ``queue``; None if the queue is not known."""
        if queue is None or not self.pools:
            return self.workers
        return sum(pool.workers for pool in self.pools if pool.serves(queue))

    def slots_of(self, queue: str) -> int:
        """Return how many steps of ``queue`` these workers can run at once, as far as they say so."""
        return sum(pool.workers * pool.slots for pool in self.pools if pool.serves(queue))

    def waiting_in(self, queue: str) -> int:
        """Return the number of messages of ``queue`` that no worker has received; 0 if it is not known."""
        return sum(self.queues[key].length for key in list_keys(queue) if key in self.queues)


class RedisMonitor:
    """Reads Redis regularly for one process; an outage is detected within period plus timeout, under half a second."""

    def __init__(
        self,
        url: str,
        now: Callable[[], datetime | None] = lambda: None,
        on_demotion: Callable[[], None] = lambda: None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """``now`` returns the store's time, or None if it was never read; it must not block.

        ``on_demotion`` is called at each snapshot that finds the server to be a read-only replica. ``pause`` waits for
        the given seconds between two snapshots, or longer while nobody reads them.
        """
        self._now = now
        self._on_demotion = on_demotion
        self._histories = {name: QueueHistory() for queue in QUEUE_NAMES for name in list_keys(queue)}
        self._redis = connect(url, timeout_s=TIMEOUT_S, connections_max=2)
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self._has_snapshot = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._last = RedisSnapshot()
        self._reports: Sequence[bytes] = ()
        self._pool_replies: Sequence[Any] = ()
        self._pools: tuple[WorkerPool, ...] = ()
        self._unavailable: Mapping[str, Unavailability] = {}

    def start(self) -> None:
        """Start the thread; call it in the process that uses the monitor, after any fork."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="redis-monitor", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    @property
    def last(self) -> RedisSnapshot:
        """The latest snapshot; waits up to a second for the first one."""
        if not self._has_snapshot.is_set():  # a fast check: read several times a request, and nearly always set
            self._has_snapshot.wait(timeout=1)
        return self._last

    def take_snapshot(self) -> RedisSnapshot:
        """Read Redis now, see whether it takes a write, and return the snapshot."""
        pipe = self._redis.pipeline(transaction=False)
        check_writable(pipe)
        worker_presence.read_presence(pipe)
        read_states(pipe)
        for name in self._histories:
            pipe.llen(name)
            pipe.lindex(name, -1)
        try:
            _, _, (workers, reports, pools), states, time, *list_replies = pipe.execute()
        except redis.RedisError as error:
            if self._last.is_connected or not self._has_snapshot.is_set():
                structlog.get_logger().warning("Redis is away", reason=str(error))
            drop_if_demoted(self._redis, error)
            if is_demotion(error):
                self._on_demotion()
            return RedisSnapshot()
        lengths, oldest = list_replies[::2], list_replies[1::2]
        if reports != self._reports:  # read ten times a second, and nearly always the same
            self._reports, self._unavailable = reports, worker_presence.merge_reports(reports)
        if pools != self._pool_replies:
            self._pool_replies, self._pools = pools, decode_pools(pools)
        queues = self._observe_queues(lengths, oldest)
        providers = decode_states(states, time)
        return RedisSnapshot(True, sum(lengths), workers, queues, self._unavailable, providers, self._pools)

    def _observe_queues(self, lengths: Sequence[int], oldest: Sequence[Any]) -> Mapping[str, QueueSnapshot]:
        now = self._now()
        if now is None:
            return {}
        now_ms = int(now.timestamp() * 1_000)
        samples = zip(self._histories.items(), lengths, oldest, strict=True)
        return {name: history.observe(now_ms, length, _decode_oldest(raw)) for (name, history), length, raw in samples}

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._last = self.take_snapshot()
            except Exception:  # noqa: BLE001  (the thread must go on: nothing else updates the snapshot)
                structlog.get_logger().exception("reading the state of Redis failed")
                self._last = RedisSnapshot()
            self._has_snapshot.set()
            self._pause(MONITOR_PERIOD_S)


def _decode_oldest(raw: Any) -> OldestMessage | None:
    if raw is None:
        return None
    try:
        message = decode_message(raw)
    except UnreadableMessage:
        return None
    return OldestMessage(message.execution_id, int(message.offered_at.timestamp() * 1_000))
