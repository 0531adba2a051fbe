"""Fault injection: named points at which a test can kill the process; in production each costs one dictionary miss.

A fault test arms a point in its own process with :func:`armed`, or in a child process by the variable
``BUCKET_FAULTS`` (``point=kill`` or ``point=exit:3``, comma separated), which only the entry points read.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ARMED: dict[str, Callable[[], None]] = {}


def reach(point: str) -> None:
    """Run the action that a test has armed at ``point``, if there is one."""
    action = _ARMED.get(point)
    if action is not None:
        action()


@contextmanager
def armed(point: str, action: Callable[[], None]) -> Iterator[None]:
    """Arm ``point`` with ``action`` while the block runs."""
    _ARMED[point] = action
    try:
        yield
    finally:
        _ARMED.pop(point, None)


def arm_from(text: str) -> None:
    """Arm the points that ``text`` names, each as ``point=kill`` (SIGKILL of this process) or ``point=exit:N``."""
    for entry in filter(None, text.split(",")):
        point, _, action = entry.partition("=")
        if action == "kill":
            _ARMED[point] = _kill_self
        elif action.startswith("exit:"):
            _ARMED[point] = _exiting(int(action.removeprefix("exit:")))
        else:
            raise ValueError(f"BUCKET_FAULTS: {entry!r} is neither point=kill nor point=exit:N")


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exiting(code: int) -> Callable[[], None]:
    return lambda: os._exit(code)
