"""Puts the text of its input wherever an agent can put one."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    text = given["text"]
    ctx.log(f"a line with {text}", text=text)
    ctx.progress(0.5, f"half of {text}")
    ctx.checkpoint({"text": text, "pad": "x" * given.get("pad_bytes", 0)})
    if given.get("fails"):
        raise ValueError(f"nothing to do with {text}")
    return {"text": text * given.get("times", 1)}
