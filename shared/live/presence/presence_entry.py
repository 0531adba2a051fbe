"""Presence entries: what a worker and a reconciler say about themselves in Redis, written and read.

A worker's entry has three lines: the *pool*, which is the same for all workers of one kind, so that the API counts
workers without parsing all of them; the time of the heartbeat by Redis's clock; and the rest. An entry that cannot be
read, such as one of a later release, still is a worker: one about which nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

TTL_S: Final = 15
"""How long an entry lasts that is not renewed."""
RECONCILERS_KEY: Final = "metrics:reconcilers"


@dataclass(frozen=True, slots=True)
class RunningSlot:
    """What one slot of a worker runs, and since when: epoch ms by the clock of the worker's machine."""

    integrator: str
    execution_id: str
    step: str
    agent: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says about itself; ``queues`` are those that it takes messages from, ``slots`` its processes.

    ``started_ms`` is epoch ms by the clock of its machine.
    """

    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    slots: int
    started_ms: int
    running: tuple[RunningSlot, ...] = ()

    @property
    def pool(self) -> bytes:
        """The first line of the entry."""
        return orjson.dumps([self.queues, self.slots])

    @property
    def body(self) -> bytes:
        """The last line of the entry."""
        return orjson.dumps(self)


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """The number of workers that take the same queues with as many slots; ``queues`` is None if that is not known."""

    queues: tuple[str, ...] | None
    slots: int
    workers: int

    def serves(self, queue: str) -> bool:
        """Return whether these workers take messages of ``queue``; a worker of an older release may take any."""
        return self.queues is None or queue in self.queues


@dataclass(frozen=True, slots=True)
class PresentWorker:
    """A worker that is present; ``info`` is None for one of a release that says no more than its name."""

    name: str
    heartbeat_ms: int | None
    info: WorkerInfo | None


@dataclass(frozen=True, slots=True)
class PresentReconciler:
    """A reconciler that is present, and whether it leads."""

    name: str
    is_leading: bool
    heartbeat_ms: int


def decode_pools(replies: Sequence[Any]) -> tuple[WorkerPool, ...]:
    """Return the pools from (first line, number of workers) in turn; an empty line is one of an older release."""
    return tuple(
        WorkerPool(*_decode_pool(pool), int(workers)) for pool, workers in zip(replies[::2], replies[1::2], strict=True)
    )


def decode_worker(name: bytes, entry: bytes | None) -> PresentWorker:
    """Return a worker by its name and its entry, if it has one that can be read."""
    text = name.decode("utf-8", "replace")
    try:
        _, heartbeat_ms, body = (entry or b"").split(b"\n", 2)
        fields = orjson.loads(body)
        running = tuple(RunningSlot(**slot) for slot in fields.pop("running"))
        info = WorkerInfo(**{**fields, "queues": tuple(fields["queues"]), "running": running})
        return PresentWorker(text, int(heartbeat_ms), info)
    except (ValueError, TypeError, KeyError, AttributeError):
        return PresentWorker(text, None, None)


def decode_reconciler(name: bytes, entry: bytes, now_s: int) -> PresentReconciler | None:
    """Return a reconciler by its name and its entry; None if that is over, or cannot be read."""
    try:
        heartbeat_ms, is_leading = map(int, entry.split())
    except ValueError:
        return None
    if heartbeat_ms < (now_s - TTL_S) * 1_000:
        return None
    return PresentReconciler(name.decode("utf-8", "replace"), bool(is_leading), heartbeat_ms)


def _decode_pool(pool: bytes) -> tuple[tuple[str, ...] | None, int]:
    try:
        queues, slots = orjson.loads(pool)
        return tuple(map(str, queues)), int(slots)
    except (ValueError, TypeError):
        return None, 0
