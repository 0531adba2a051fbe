"""An agent that sleeps for 0.15 s: long enough to be visible while it runs."""

from __future__ import annotations

import time
from typing import Any, Final

from worker.context import AgentContext

_NAP_S: Final = 0.15


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Sleep, then return the input."""
    time.sleep(_NAP_S)
    ctx.log("slept")
    return given
