"""Starts a child process and waits."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    if "file" not in given or Path(given["file"]).exists():
        return {}
    started = subprocess.Popen(["sleep", "600"])
    note = Path(given["file"])
    note.with_suffix(".new").write_text(str(started.pid))
    note.with_suffix(".new").rename(note)
    time.sleep(given.get("seconds", 600))
    return {}
