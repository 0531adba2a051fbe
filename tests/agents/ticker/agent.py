"""Does a number of small pieces of work, and resumes after its last checkpoint."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    pieces = given.get("pieces", 0)
    resumed_at = (ctx.restore() or {"done": 0})["done"]
    for number in range(resumed_at, pieces):
        with Path(given["path"]).open("a") as file:
            file.write(f"{ctx.attempt} {number} {os.getpid()}\n")
        time.sleep(given.get("slice_s", 0))
        ctx.checkpoint({"done": number + 1, "pad": "x" * given.get("pad_bytes", 0)})
    return {"done": pieces, "resumed_at": resumed_at}
