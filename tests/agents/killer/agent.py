"""Kills its own process, as the kernel does if memory runs out."""

from __future__ import annotations

import os
import signal
from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    if not given.get("spare", True):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"killed": False}
