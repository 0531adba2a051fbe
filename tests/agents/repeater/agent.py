"""Repeats the text of its input, and keeps it in a log line and a checkpoint."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    text = given["text"]
    ctx.log("a line", text=text)
    before = ctx.restore()
    ctx.checkpoint({"text": text, "pad": "x" * given.get("pad_bytes", 0)})
    if given.get("fails"):
        raise ValueError("nothing to do" + (", again" if before and before["text"] == text else ""))
    return {"text": text * given.get("times", 1)}
