"""Appends a line to a file each time it runs; fault tests count the lines."""

from __future__ import annotations

import os
import time
from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    if "file" in given:
        # One write with O_APPEND is atomic, however many processes append at once.
        handle = os.open(given["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, f"{ctx.execution_id}:{ctx.step}:{ctx.attempt}\n".encode())
        os.close(handle)
    time.sleep((given.get("first_s", 0) if ctx.attempt == 1 else 0) or given.get("seconds", 0))
    # The input is passed on, so that a chain counts each of its steps; only the first step must sleep for ``first_s``.
    return {**{name: value for name, value in given.items() if name != "first_s"}, "attempt": ctx.attempt}
