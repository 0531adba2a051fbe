"""Agent memory: gives an agent its last output in the same basket, and stores its new one; never fails a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import structlog

from shared.bootstrap import Services
from shared.domain.execution import INLINE, Execution, Step
from shared.domain.lifecycle.decision import StepOutput
from shared.errors import BucketError, EncryptionKeyMissing, SealBroken
from shared.store.agent_memory_store import MemoryKey
from shared.store.executions.settle import retry_until_reply
from worker.steps.protection.step_protection import StepProtection


class AgentMemory:
    """The memory of agents whose specification has ``memory_access``; it costs other agents nothing."""

    def __init__(self, services: Services) -> None:
        self._catalogue = services.catalogue
        self._memory = services.agent_memory
        self._erasures = services.erasures
        self._sealer = services.sealer
        self._protection = StepProtection(services)

    def previous_state(self, execution: Execution, step: Step, give_up: Callable[[], bool]) -> dict[str, Any] | None:
        """Return the agent's last recorded output; None if there is none, or if the run does not use the memory.

        A run of a basket always uses it, a run of a single agent only if it is ``stateful``.
        """
        is_requested = execution.stateful or execution.kind != "agent"
        if not is_requested or not self._has_memory(step.agent):
            return None
        key = _memory_key_of(execution, step)
        stored = retry_until_reply(lambda: self._memory.recall(key), give_up)
        if stored is None:
            return None
        try:
            state: dict[str, Any] = orjson.loads(self._sealer.open(stored, key.id))
        except (EncryptionKeyMissing, SealBroken) as error:
            structlog.get_logger().warning("an agent's memory cannot be opened", agent=step.agent, reason=error.message)
            return None
        return state

    def remember(self, execution: Execution, outputs: tuple[StepOutput, ...]) -> None:
        """Store outputs that have just been recorded; errors of the store are logged, not raised."""
        for output in outputs:
            step = execution.steps[output.step]
            if not self._has_memory(step.agent):
                continue
            try:
                at = step.finished_at or execution.created_at
                key = _memory_key_of(execution, step)
                self._memory.remember(key, self._content_of(execution, output, key), at)
                self._erasures.delete_late(execution)
            except BucketError as error:
                structlog.get_logger().warning(
                    "an agent's memory was not stored", agent=step.agent, reason=error.message
                )

    def _content_of(self, execution: Execution, output: StepOutput, key: MemoryKey) -> bytes:
        """Return the whole output, sealed if it has marked fields or if all payloads are."""
        if output.marked is not None:
            whole = self._protection.open_outputs(execution, {output.step: orjson.loads(output.json)})
            return self._sealer.seal(orjson.dumps(whole[output.step]), key.id)
        return self._sealer.seal(output.json, key.id) if self._sealer.seals_payloads else output.json

    def _has_memory(self, agent: str) -> bool:
        return self._catalogue.has(agent) and self._catalogue.agent(agent).capabilities.memory_access


def _memory_key_of(execution: Execution, step: Step) -> MemoryKey:
    kind = "basket" if execution.kind == INLINE else execution.kind  # they always shared one memory
    return MemoryKey(execution.integrator, kind, execution.basket.name, step.agent)
