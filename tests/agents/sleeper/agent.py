"""Sleeps in small slices until the time is over or it is asked to stop."""

from __future__ import annotations

import time
from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    seconds = given.get("seconds", 0)
    end = time.monotonic() + seconds
    ctx.log("falling asleep", seconds=seconds)
    while (left := end - time.monotonic()) > 0 and not ctx.cancelled:
        ctx.progress(1 - left / seconds, f"{left:.1f} s to go")
        time.sleep(min(left, given.get("slice_s", 0.02)))
    ctx.log("awake", cancelled=ctx.cancelled)
    ctx.progress(1.0)
    return {"slept": True, "cancelled": ctx.cancelled}
