"""Shared memory of a worker's main process and its children: which child is alive, runs agent code, or is late.

It is made before the fork and needs no store, no lock and no working child: an agent that holds the GIL stops every
thread of its process, and the watchdog must still see that. One child writes a slot; the main process reads it. Each
slot is a seqlock: a counter that is odd during a write lets the reader detect a torn read.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from typing import Final

import orjson

from shared.clock import boottime_s
from shared.domain.execution import Lease

_HEADER_STRUCT: Final = struct.Struct("d")  # when the drain began, in seconds since boot; 0: no drain
_SLOT_STRUCT: Final = struct.Struct("QqQd?B")  # sequence, pid, alive count, kill_at, in agent code, stop reason
_LEASE_BYTES: Final = 1024
_SLOT_BYTES: Final = 2048
_READ_ATTEMPTS_MAX: Final = 50

STOP_REASONS: Final = ("", "timeout", "cancelled", "lost")


@dataclass(frozen=True, slots=True)
class SlotState:
    """One read of a slot.

    ``kill_at`` (seconds since boot, 0 for never) is the time by which the child itself should have ended the step;
    after it the watchdog kills the child. ``alive_count`` grows while the child runs steps and its threads run.
    ``agent`` is that of the step, empty while outcomes are written; ``since_ms`` (epoch) is when it began.
    """

    pid: int
    alive_count: int
    kill_at: float
    is_in_agent: bool
    stop_reason: str
    lease: Lease | None
    agent: str = ""
    since_ms: int = 0


class SharedSlots:
    """The slots of all children of one worker, and the worker's drain flag."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, _SLOT_BYTES * (count + 1))

    @property
    def drain_began_at(self) -> float:
        """When the worker began to drain, in seconds since boot; 0 if it does not drain."""
        began_at: float = _HEADER_STRUCT.unpack_from(self._memory, 0)[0]
        return began_at

    def begin_drain(self) -> None:
        """Set the drain flag: from now on no child begins a step."""
        _HEADER_STRUCT.pack_into(self._memory, 0, boottime_s())

    def slot(self, index: int) -> ChildSlot:
        """Return the slot of the child with this index."""
        return ChildSlot(self._memory, _SLOT_BYTES * (index % self.count + 1))

    def read_states(self) -> list[SlotState]:
        """Return the states of all slots in use; a slot that was in the middle of a write at every try is left out."""
        states = (self.slot(index).read() for index in range(self.count))
        return [state for state in states if state is not None and state.pid]


class ChildSlot:
    """One child's slot; all methods but ``read`` are for that child alone."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset
        self._pid = os.getpid()
        self._sequence = 0
        self._alive_count = 0
        self._kill_at = 0.0
        self._is_in_agent = False
        self._stop_reason_index = 0
        self._lease = b""

    def begin_step(self, lease: Lease, kill_at: float, agent: str = "") -> None:
        """Write the lease and agent of the step that begins, and when its child must be killed if nothing stops it.

        It is a sign of life too: an idle child gives none, and the watchdog has counted the checks without one.
        """
        self._alive_count += 1
        self._lease = orjson.dumps([lease, agent, int(time.time() * 1_000)])
        self._kill_at, self._stop_reason_index = kill_at, 0
        self._write(lease=True)

    def end_step(self) -> None:
        """Write that no step runs."""
        self._lease, self._kill_at, self._is_in_agent, self._stop_reason_index = b"", 0.0, False, 0
        self._write(lease=True)

    def set_in_agent(self, *, running: bool) -> None:
        """Write whether agent code runs, if that has changed."""
        if running is not self._is_in_agent:
            self._is_in_agent = running
            self._write()

    def request_stop(self, reason: str, kill_at: float) -> None:
        """Write why the step is asked to stop, and when its child must be killed."""
        self._stop_reason_index, self._kill_at = STOP_REASONS.index(reason), kill_at
        self._write()

    def mark_alive(self) -> None:
        """Count up, as a sign of life: threads run in this child."""
        self._alive_count += 1
        self._write()

    def read(self) -> SlotState | None:
        """Return the state of the slot; None if it was in the middle of a write at every try."""
        for _ in range(_READ_ATTEMPTS_MAX):
            sequence, pid, alive_count, kill_at, is_in_agent, stop_reason_index = _SLOT_STRUCT.unpack_from(
                self._memory, self._offset
            )
            start = self._offset + _SLOT_STRUCT.size
            text = bytes(self._memory[start : start + _LEASE_BYTES]).rstrip(b"\0")
            if sequence % 2 == 0 and _SLOT_STRUCT.unpack_from(self._memory, self._offset)[0] == sequence:
                fields, agent, since_ms = orjson.loads(text) if text else (None, "", 0)
                lease = None if fields is None else Lease(**fields)
                stop_reason = STOP_REASONS[stop_reason_index]
                return SlotState(pid, alive_count, kill_at, is_in_agent, stop_reason, lease, agent, since_ms)
        return None

    def _write(self, *, lease: bool = False) -> None:
        self._sequence += 1
        self._pack()
        if lease:
            start = self._offset + _SLOT_STRUCT.size
            self._memory[start : start + _LEASE_BYTES] = self._lease.ljust(_LEASE_BYTES, b"\0")
        self._sequence += 1
        self._pack()

    def _pack(self) -> None:
        stop = (self._kill_at, self._is_in_agent, self._stop_reason_index)
        _SLOT_STRUCT.pack_into(self._memory, self._offset, self._sequence, self._pid, self._alive_count, *stop)
