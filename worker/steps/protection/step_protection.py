"""Opens what a step is given, and masks what it returns: its agent sees clear values, and no store does.

A text of a marked field (8 characters or more) is hidden wherever else the agent puts it: in logs, progress and errors
it is replaced, and in an output its place is treated as marked, so that the next agent still gets the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from shared.bootstrap import Services
from shared.domain.definitions.marked_fields import (
    marked_paths,
    mask,
    paths_with_texts,
    texts_to_hide,
    unmask,
)
from shared.domain.definitions.marked_flow import marked_in_output, marked_in_run_input
from shared.domain.execution import Execution, RunError, Step
from shared.sealing import checkpoint_place, input_place, key_id_of, marked_place
from worker.steps.outcome_checks import step_error

MARKED_MAX_BYTES: Final = 16 * 1024
"""Limit of the marked fields of one output: they are stored in the execution, which must hold those of 200 steps."""


@dataclass(frozen=True, slots=True)
class ProtectedOutput:
    """The output of a step with ``***`` in place of its marked fields, and these fields, sealed."""

    json: bytes
    marked: bytes


class StepProtection:
    """Opens and seals for the steps of one worker; a run without marked fields costs a few look-ups."""

    def __init__(self, services: Services) -> None:
        self._sealer = services.sealer
        self._catalogue = services.catalogue

    def open_run_input(self, execution: Execution) -> dict[str, Any]:
        """Return a run's input; raises EncryptionKeyMissing and SealBroken."""
        opened: dict[str, Any] = orjson.loads(self._sealer.open(execution.input, input_place(execution.id)))
        return opened

    def open_outputs(
        self, execution: Execution, outputs: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Mapping[str, Any]]:
        """Return outputs of steps with their marked fields in place."""
        return {step: self._open_output(execution, step, output) for step, output in outputs.items()}

    def _open_output(self, execution: Execution, step: str, output: Mapping[str, Any]) -> Mapping[str, Any]:
        marked = self._marked_parts(execution, step)
        opened: Mapping[str, Any] = unmask(output, marked) if marked else output
        return opened

    def _marked_parts(self, execution: Execution, step: str) -> dict[str, Any]:
        sealed = execution.steps[step].marked
        if sealed is None:
            return {}
        parts: dict[str, Any] = orjson.loads(self._sealer.open(sealed, marked_place(execution.id, step)))
        return parts

    def hidden_texts(self, execution: Execution, step: Step, step_input: Mapping[str, Any]) -> dict[str, str]:
        """Return the texts that nothing but the agent itself may see, by a name for each; mostly none."""
        if not self._catalogue.has_marks:
            return {}
        texts: dict[str, str] = {}
        if key_id_of(execution.input) is not None:
            run_input = self.open_run_input(execution)
            marked = marked_in_run_input(execution.basket, run_input, self._catalogue)
            texts |= texts_to_hide(mask(run_input, marked)[1], "input")
        for need in execution.basket.step(step.id).needs:
            texts |= texts_to_hide(self._marked_parts(execution, need), need)
        if (schema := self._catalogue.marked_input_schema(step.agent)) is not None:
            own = mask(step_input, marked_paths(schema, step_input))[1]
            texts |= {name: text for name, text in texts_to_hide(own, step.id).items() if text not in texts.values()}
        return texts

    def protect(
        self, execution: Execution, step: Step, output: bytes, hidden: Iterable[str]
    ) -> bytes | ProtectedOutput | RunError:
        """Return a checked output as it may be stored; the error if its marked fields are too large."""
        if not self._catalogue.has_marks:
            return output
        value = orjson.loads(output)
        paths = marked_in_output(execution.basket, step.id, value, self._catalogue)
        paths |= paths_with_texts(value, hidden)
        if not paths:
            return output
        masked, parts = mask(value, paths)
        encoded = orjson.dumps(parts)
        if len(encoded) > MARKED_MAX_BYTES:
            message = f"the marked fields of the output take {len(encoded)} bytes; at most {MARKED_MAX_BYTES} are kept"
            return step_error(step, "output_too_large", message)
        return ProtectedOutput(orjson.dumps(masked), self._sealer.seal(encoded, marked_place(execution.id, step.id)))

    def seal_checkpoint(self, execution: Execution, step: str, state: bytes) -> bytes:
        """Return a checkpoint as it may be stored: sealed if the run has anything sealed, or if all payloads are."""
        has_sealed = key_id_of(execution.input) is not None or any(
            each.marked is not None for each in execution.steps.values()
        )
        if not (has_sealed or self._sealer.seals_payloads) or not self._sealer.has_keys:
            return state
        return self._sealer.seal(state, checkpoint_place(execution.effects_of or execution.id, step))

    def open_checkpoint(self, execution: Execution, step: str, state: bytes) -> bytes:
        """Return a checkpoint of a step, of this run or of the one that it retries, in clear."""
        return self._sealer.open(state, checkpoint_place(execution.effects_of or execution.id, step))
