"""Tells a worker's children that their main process was asked to end; in memory made before they are forked.

A signal would not do: Celery resets its children's handlers, and one that waits for the store hears none.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

from shared.store.clock import since_boot

_MOMENT: Final = struct.Struct("d")


class Drain:
    """One worker's last ``after_s`` seconds, seen alike by its main process and all children forked after this."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._began_at = mmap.mmap(-1, _MOMENT.size)  # anonymous and shared; zero at first

    def begin(self) -> None:
        """Begin; a second time changes nothing."""
        if not self.has_begun():
            _MOMENT.pack_into(self._began_at, 0, since_boot())

    def has_begun(self) -> bool:
        """True once nothing new should be taken on."""
        return self._moment() > 0

    def is_over(self) -> bool:
        """True once what is not done by now is to be left: the reconciler offers it again."""
        return self.has_begun() and since_boot() - self._moment() >= self._after_s

    def _moment(self) -> float:
        began_at: float = _MOMENT.unpack_from(self._began_at, 0)[0]
        return began_at
