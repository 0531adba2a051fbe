"""Is given secrets and tells them wherever it can; its schemas mark some of its fields."""

from __future__ import annotations

from typing import Any

from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    pin = given["person"]["pin"]
    ctx.log(f"the pin is {pin}", pin=pin)
    ctx.progress(0.5, f"with {pin}")
    before = ctx.restore()
    ctx.checkpoint({"pin": pin, "attempt": ctx.attempt})
    if given.get("fails_until", 0) >= ctx.attempt:
        raise ConnectionError(f"no connection with {pin}")
    if given.get("raises"):
        raise ValueError(f"{pin} is refused")
    memory = ctx.previous_state or {}
    made = {"say": [f"{pin[::-1]}-made"]} if given.get("makes") else {}
    return {
        **made,
        "seen": {"codes": [*given.get("codes", []), {"code": pin}]},
        "echo": f"<{pin}>",
        "is_clear": "*" not in f"{pin}{given.get('codes')}{before}{memory}",
        "remembered": bool(memory),
    }
