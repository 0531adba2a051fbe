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

from shared.clock import since_boot
from shared.domain.execution import Lease

_HEADER: Final = struct.Struct("d")  # since when the worker drains, in seconds since boot; 0: it does not
_NUMBERS: Final = struct.Struct("QqQd?B")  # writes, pid, beats, kill_at, in agent code, why
_LEASE_BYTES: Final = 1024
_SLOT_BYTES: Final = 2048
_READS_MAX: Final = 50

WHY: Final = ("", "timeout", "cancelled", "lost")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a slot says: ``kill_at`` (seconds since boot, 0 for never) is when its child's own means are used up."""

    pid: int
    beats: int
    kill_at: float
    in_agent: bool
    why: str
    lease: Lease | None


class Slots:
    """The slots of all children of one worker, and whether it drains."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, _SLOT_BYTES * (count + 1))

    @property
    def draining_since(self) -> float:
        """When the worker began to drain, in seconds since boot; 0 where it does not."""
        since: float = _HEADER.unpack_from(self._memory, 0)[0]
        return since

    def drain(self) -> None:
        """Tell all children that no step is begun any more."""
        _HEADER.pack_into(self._memory, 0, since_boot())

    def slot(self, index: int) -> Slot:
        """Answer the slot of the child of this index."""
        return Slot(self._memory, _SLOT_BYTES * (index % self.count + 1))

    def seen(self) -> list[Seen]:
        """Answer what the slots of living children say; one that is being written all the while is left out."""
        states = (self.slot(index).read() for index in range(self.count))
        return [state for state in states if state is not None and state.pid]


class Slot:
    """One child's place; all but ``read`` are for that child alone."""

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory = memory
        self._at = at
        self._writes = 0
        self._beats = 0
        self._kill_at = 0.0
        self._in_agent = False
        self._why = 0
        self._lease = b""

    def enter(self, lease: Lease, kill_at: float) -> None:
        """Note the step that begins, and when its child must be killed should nothing else help."""
        self._lease = orjson.dumps(lease)
        self._kill_at, self._why = kill_at, 0
        self._write(lease=True)

    def leave(self) -> None:
        """Note that no step runs."""
        self._lease, self._kill_at, self._in_agent, self._why = b"", 0.0, False, 0
        self._write(lease=True)

    def set_in_agent(self, *, running: bool) -> None:
        """Note whether agent code runs."""
        self._in_agent = running
        self._write()

    def ask(self, why: str, kill_at: float) -> None:
        """Note why the step is asked to stop, and when its child must be killed."""
        self._why, self._kill_at = WHY.index(why), kill_at
        self._write()

    def beat(self) -> None:
        """Note that threads run in this child."""
        self._beats += 1
        self._write()

    def read(self) -> Seen | None:
        """Answer what the slot says; None where it was being written at every try."""
        for _ in range(_READS_MAX):
            writes, pid, beats, kill_at, in_agent, why = _NUMBERS.unpack_from(self._memory, self._at)
            start = self._at + _NUMBERS.size
            text = bytes(self._memory[start : start + _LEASE_BYTES]).rstrip(b"\0")
            if writes % 2 == 0 and _NUMBERS.unpack_from(self._memory, self._at)[0] == writes:
                lease = Lease(**orjson.loads(text)) if text else None
                return Seen(pid, beats, kill_at, in_agent, WHY[why], lease)
        return None

    def _write(self, *, lease: bool = False) -> None:
        self._writes += 1
        self._pack()
        if lease:
            start = self._at + _NUMBERS.size
            self._memory[start : start + _LEASE_BYTES] = self._lease.ljust(_LEASE_BYTES, b"\0")
        self._writes += 1
        self._pack()

    def _pack(self) -> None:
        _NUMBERS.pack_into(
            self._memory, self._at, self._writes, os.getpid(), self._beats, self._kill_at, self._in_agent, self._why
        )
