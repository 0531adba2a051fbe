"""Never checks whether it should stop: sleeps, loops, swallows the interrupt or holds the GIL."""

from __future__ import annotations

import re
import time
from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    how = given.get("how", "none")
    ctx.log("begun", how=how)
    until = time.monotonic() + 120
    while how != "none" and time.monotonic() < until:
        try:
            _stay(how)
        except BaseException:
            if how != "swallow":
                raise
    return {}


def _stay(how: str) -> None:
    if how == "regex":
        re.match(r"(a|a)*b", "a" * 40)
    elif how == "loop":
        sum(range(1_000_000))
    else:
        time.sleep(120)
