"""Has an effect at a stub provider, which counts the effect once for each idempotency key."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from worker.agent_errors import PermanentError, TransientError
from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    if "provider" not in given:
        return {}
    calls = Path(given["provider"]) / ctx.idempotency_key
    note(calls, f"call {ctx.attempt} {os.getpid()} {time.time():.3f}")
    time.sleep(given.get("seconds", 0))
    if given.get("broken"):
        raise PermanentError("it was built to fail")
    failed = calls.read_text().count("failed")
    if failed < given.get("failures", 0):
        note(calls, f"failed {ctx.attempt}")
        raise TransientError(f"failure {failed + 1}")
    try:
        os.close(os.open(f"{calls}.effect", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        note(calls, "known")  # the provider has seen this key: it repeats its first reply
    return given


def note(calls: Path, line: str) -> None:
    # One write with O_APPEND is atomic, and survives a SIGKILL.
    handle = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)
