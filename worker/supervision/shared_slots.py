"""Memory that a worker's main process shares with its children: who beats, who runs agent code, who is late.

It is made before the fork and needs no store, no lock and no working child: an agent that holds the GIL stops every
thread of its process, and the watchdog must still see that. One child writes a slot; the main process reads it. A
counter that is odd while a slot is being written tells a torn reading.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from typing import Final

import orjson

from shared.clock import boottime_s
from shared.domain.execution import Lease

_HEADER_STRUCT: Final = struct.Struct("d")  # since when the worker drains, in seconds since boot; 0: it does not
_SLOT_STRUCT: Final = struct.Struct("QqQd?B")  # writes, pid, beats, kill_at, in agent code, why
_LEASE_BYTES: Final = 1024
_SLOT_BYTES: Final = 2048
_READ_ATTEMPTS_MAX: Final = 50

STOP_REASONS: Final = ("", "timeout", "cancelled", "lost")


@dataclass(frozen=True, slots=True)
class SlotState:
    """What a slot says: ``kill_at`` (seconds since boot, 0 for never) is when its child's own means are used up."""

    pid: int
    alive_count: int
    kill_at: float
    is_in_agent: bool
    stop_reason: str
    lease: Lease | None


class SharedSlots:
    """The slots of all children of one worker, and whether it drains."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, _SLOT_BYTES * (count + 1))

    @property
    def drain_began_at(self) -> float:
        """When the worker began to drain, in seconds since boot; 0 where it does not."""
        since: float = _HEADER_STRUCT.unpack_from(self._memory, 0)[0]
        return since

    def begin_drain(self) -> None:
        """Tell all children that no step is begun any more."""
        _HEADER_STRUCT.pack_into(self._memory, 0, boottime_s())

    def slot(self, index: int) -> ChildSlot:
        """Answer the slot of the child of this index."""
        return ChildSlot(self._memory, _SLOT_BYTES * (index % self.count + 1))

    def read_states(self) -> list[SlotState]:
        """Answer what the slots of living children say; one that is being written all the while is left out."""
        states = (self.slot(index).read() for index in range(self.count))
        return [state for state in states if state is not None and state.pid]


class ChildSlot:
    """One child's place; all but ``read`` are for that child alone."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset
        self._sequence = 0
        self._alive_count = 0
        self._kill_at = 0.0
        self._is_in_agent = False
        self._stop_reason_index = 0
        self._lease = b""

    def begin_step(self, lease: Lease, kill_at: float) -> None:
        """Note the step that begins, and when its child must be killed should nothing else help."""
        self._lease = orjson.dumps(lease)
        self._kill_at, self._stop_reason_index = kill_at, 0
        self._write(lease=True)

    def end_step(self) -> None:
        """Note that no step runs."""
        self._lease, self._kill_at, self._is_in_agent, self._stop_reason_index = b"", 0.0, False, 0
        self._write(lease=True)

    def set_in_agent(self, *, running: bool) -> None:
        """Note whether agent code runs."""
        self._is_in_agent = running
        self._write()

    def request_stop(self, reason: str, kill_at: float) -> None:
        """Note why the step is asked to stop, and when its child must be killed."""
        self._stop_reason_index, self._kill_at = STOP_REASONS.index(reason), kill_at
        self._write()

    def mark_alive(self) -> None:
        """Note that threads run in this child."""
        self._alive_count += 1
        self._write()

    def read(self) -> SlotState | None:
        """Answer what the slot says; None where it was being written at every try."""
        for _ in range(_READ_ATTEMPTS_MAX):
            writes, pid, beats, kill_at, in_agent, why = _SLOT_STRUCT.unpack_from(self._memory, self._offset)
            start = self._offset + _SLOT_STRUCT.size
            text = bytes(self._memory[start : start + _LEASE_BYTES]).rstrip(b"\0")
            if writes % 2 == 0 and _SLOT_STRUCT.unpack_from(self._memory, self._offset)[0] == writes:
                lease = Lease(**orjson.loads(text)) if text else None
                return SlotState(pid, beats, kill_at, in_agent, STOP_REASONS[why], lease)
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
        _SLOT_STRUCT.pack_into(
            self._memory,
            self._offset,
            self._sequence,
            os.getpid(),
            self._alive_count,
            self._kill_at,
            self._is_in_agent,
            self._stop_reason_index,
        )
