"""Sleeps the first time that it runs with a path, and returns at once the second time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    if "path" in given and not Path(given["path"]).exists():
        Path(given["path"]).touch()
        time.sleep(given.get("seconds", 0))
    return {}
