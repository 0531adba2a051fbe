"""Fault injection: named points at which a test can kill the process; in production each costs one dictionary miss.

A fault test arms a point in its own process by an entry of :data:`ARMED`, or in a child process by the variable
``BUCKET_FAULTS`` (``point=kill`` or ``point=exit:3``, comma separated), which only the entry points read.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

ARMED: dict[str, Callable[[], None]] = {}


def reach(point: str) -> None:
    """Run the action that a test has armed at ``point``, if there is one."""
    action = ARMED.get(point)
    if action is not None:
        action()


def arm_from(text: str) -> None:
    """Arm the points that ``text`` names, each as ``point=kill`` (SIGKILL of this process) or ``point=exit:N``."""
    for entry in filter(None, text.split(",")):
        point, _, action = entry.partition("=")
        if action == "kill":
            ARMED[point] = partial(signal.raise_signal, signal.SIGKILL)
        elif action.startswith("exit:"):
            ARMED[point] = partial(os._exit, int(action.removeprefix("exit:")))
        else:
            raise ValueError(f"BUCKET_FAULTS: {entry!r} is neither point=kill nor point=exit:N")
