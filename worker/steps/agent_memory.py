"""Hands an agent what it returned last in this basket, and keeps what it returns now; never fails a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import structlog

from shared.bootstrap import Services
from shared.domain.execution import Execution, Step
from shared.domain.lifecycle.decision import StepOutput
from shared.errors import BucketError
from shared.store.agent_memory_store import MemoryKey
from shared.store.executions.settle import retry_until_answered


class AgentMemory:
    """The memory of those agents whose spec says ``memory_access``; it costs all others nothing."""

    def __init__(self, services: Services) -> None:
        self._catalogue = services.catalogue
        self._memory = services.agent_memory

    def previous_state(self, execution: Execution, step: Step, give_up: Callable[[], bool]) -> dict[str, Any] | None:
        """Answer the agent's last recorded output here; None where there is none, or the run did not ask for it.

        In a basket it is always asked for, in a run of the agent alone by ``stateful``.
        """
        asked = execution.stateful or execution.kind != "agent"
        if not asked or not self._has_memory(step.agent):
            return None
        kept = retry_until_answered(lambda: self._memory.recall(_memory_key_of(execution, step)), give_up)
        state: dict[str, Any] | None = None if kept is None else orjson.loads(kept)
        return state

    def remember(self, execution: Execution, outputs: tuple[StepOutput, ...]) -> None:
        """Keep outputs that have just been recorded; raises nothing of the store's."""
        for output in outputs:
            step = execution.steps[output.step]
            if not self._has_memory(step.agent):
                continue
            try:
                at = step.finished_at or execution.created_at
                self._memory.remember(_memory_key_of(execution, step), output.json, at)
            except BucketError as away:
                structlog.get_logger().warning("an agent's memory was not kept", agent=step.agent, reason=away.message)

    def _has_memory(self, agent: str) -> bool:
        return self._catalogue.has(agent) and self._catalogue.agent(agent).capabilities.memory_access


def _memory_key_of(execution: Execution, step: Step) -> MemoryKey:
    return MemoryKey(execution.integrator, execution.kind, execution.basket.name, step.agent)
