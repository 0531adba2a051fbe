"""The seal of what MongoDB holds of a run: outputs and the data of log lines are sealed as they are written.

Inputs, marked fields and checkpoints come sealed. Each write notes the keys that it used in ``sealed``, by which the
rotation finds its runs, and by which a reader knows that there is something to open. Without keys nothing happens here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from shared.domain.execution import Execution
from shared.domain.status import StepStatus
from shared.errors import EncryptionKeyMissing, SealBroken
from shared.sealing import NO_SEALER, Sealer, key_id_of, log_place, output_place
from shared.store.database import Database, db_call
from shared.store.executions.write_filters import external_output_id

UNREADABLE_DATA: Final = b'{"sealed":true}'

_Document = dict[str, Any]


class PayloadSeal:
    """Seals the documents and updates of executions, and opens what is read."""

    def __init__(self, sealer: Sealer = NO_SEALER) -> None:
        self._sealer = sealer
        self._has_keys = sealer.has_keys

    def seal_document(self, document: _Document) -> _Document:
        """Seal the document of a new run in place, and return it."""
        if not self._has_keys:
            return document
        execution_id, steps = document["_id"], document["steps"]
        if self._sealer.seals_payloads:
            document["outputs"] = self._sealed_outputs(execution_id, document["outputs"])
            self._seal_events(execution_id, document["events"])
        values = (document["input"], *document["outputs"].values(), *(step.get("marked") for step in steps.values()))
        if keys := _key_ids(values) | ({self._sealer.key_id} if self._sealer.seals_payloads else set()):
            document["sealed"] = sorted(filter(None, keys))
        return document

    def seal_update(self, execution_id: str, update: _Document) -> _Document:
        """Seal the update of a run in place, and return it."""
        if not self._has_keys:
            return update
        to_set: _Document = update.get("$set", {})
        pushed: list[_Document] = update.get("$push", {}).get("events", {}).get("$each", [])
        if self._sealer.seals_payloads:
            self._seal_events(execution_id, pushed)
            for path, value in to_set.items():
                if path.startswith("outputs."):
                    place = output_place(execution_id, path.removeprefix("outputs."))
                    to_set[path] = self._sealer.seal(value, place)
        if keys := _key_ids((*to_set.values(), *(event["data"] for event in pushed))):
            update["$addToSet"] = {"sealed": {"$each": sorted(keys)}}
        return update

    def seal_external(self, execution_id: str, step: str, output: bytes) -> bytes:
        """Return a large output as it is stored."""
        return self._sealer.seal(output, output_place(execution_id, step)) if self._sealer.seals_payloads else output

    def open_document(self, document: _Document, *, strict: bool = True) -> _Document:
        """Open the outputs and log lines of a document in place, and return it.

        What cannot be opened raises EncryptionKeyMissing or SealBroken. If not ``strict``, as after a write that
        succeeded, such an output is left out, and such data says so.
        """
        if "sealed" not in document:
            return document
        execution_id, outputs = document["_id"], document.get("outputs", {})
        opened = {step: self._open(value, output_place(execution_id, step), strict) for step, value in outputs.items()}
        document["outputs"] = {step: value for step, value in opened.items() if value is not None}
        for event in document.get("events", ()):
            data = self._open(event["data"], log_place(execution_id), strict)
            event["data"] = UNREADABLE_DATA if data is None else data
        return document

    def read_external(
        self, database: Database, execution: Execution, steps: Iterable[str], *, strict: bool = True
    ) -> Mapping[str, bytes]:
        """Return the large outputs of those of ``steps`` that have completed with one, by step."""
        completed = [execution.steps[step] for step in steps if step in execution.steps]
        step_by_id = {
            external_output_id(execution.id, step.id, step.token): step.id
            for step in completed
            if step.output_apart and step.status is StepStatus.COMPLETED
        }
        if not step_by_id:
            return {}
        query = {"_id": {"$in": list(step_by_id)}, "integrator": execution.integrator}
        with db_call(database, writes=False):
            rows = {step_by_id[row["_id"]]: row["json"] for row in database.collection("outputs").find(query)}
        opened = {step: self._open(value, output_place(execution.id, step), strict) for step, value in rows.items()}
        return {step: value for step, value in opened.items() if value is not None}

    def _open(self, value: bytes, place: str, strict: bool) -> bytes | None:
        try:
            return self._sealer.open(value, place)
        except (EncryptionKeyMissing, SealBroken):
            if strict:
                raise
            return None

    def _sealed_outputs(self, execution_id: str, outputs: Mapping[str, bytes]) -> dict[str, bytes]:
        return {step: self._sealer.seal(value, output_place(execution_id, step)) for step, value in outputs.items()}

    def _seal_events(self, execution_id: str, events: Iterable[_Document]) -> None:
        for event in events:
            if event["data"] != b"{}":
                event["data"] = self._sealer.seal(event["data"], log_place(execution_id))


def _key_ids(values: Iterable[Any]) -> set[str]:
    return {key_id for value in values if isinstance(value, bytes) and (key_id := key_id_of(value)) is not None}


NO_PAYLOAD_SEAL: Final = PayloadSeal()
