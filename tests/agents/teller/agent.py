"""Logs what its input says, fails if told to, and returns its input with what it remembers of the run before."""

from __future__ import annotations

from typing import Any

from worker.agent_errors import TransientError
from worker.context import AgentContext


def run(given: dict[str, Any], ctx: AgentContext) -> Any:
    for line in given.get("say", ()):
        ctx.log(line, said=line)
    if "fail" in given:
        raise TransientError(given["fail"])
    previous = ctx.previous_state or {}
    return {"said": given.get("say", []), "given": given.get("note"), "remembered": previous.get("said")}
