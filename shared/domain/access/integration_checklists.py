"""The checklists of an integration: directionality (the caller asks, nothing calls back) and compliance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Checklist(StrEnum):
    """Which of the two checklists an item is of."""

    DIRECTIONALITY = "directionality"
    COMPLIANCE = "compliance"


@dataclass(frozen=True, slots=True)
class ChecklistItem:
    """One statement that must be true of an integration before it may be activated."""

    id: str
    checklist: Checklist
    text: str


_DIRECTIONALITY: Final[Mapping[str, str]] = {
    "no_callback_address": "The integrator opens no address for Bucket to call, and no body names one.",
    "results_by_polling": "Results are taken by polling status_url until done is true.",
    "poll_after_obeyed": "Between two polls of a run the integrator waits for poll_after_ms.",
    "idempotency_keys_sent": "Each submit has an Idempotency-Key that stays the same when the submit is repeated.",
    "execution_id_stored_first": "The execution_id is stored durably before the integrator's own work goes on.",
    "refusals_handled": "429 and 503 are repeated after Retry-After; other refusals are never repeated unchanged.",
    "many_runs_by_feed": "With more than 20 runs at once the feed or POST /executions/poll replaces single polls.",
    "failed_runs_handled": "A run that failed or was cancelled leads to a defined action in the integrator's system.",
}
_COMPLIANCE: Final[Mapping[str, str]] = {
    "purpose_documented": "The purpose of the processing and its lawful basis are written down.",
    "data_minimised": "Inputs have only the fields that the named agents need.",
    "personal_fields_marked": "Fields with personal or secret data are known and marked in the mapping document.",
    "no_credentials_in_input": "No input, metadata, tag or reference has a password, a token or a key.",
    "retention_agreed": "How long Bucket and the integrator keep inputs and results is agreed and set.",
    "erasure_agreed": "Who asks for the erasure of a run's content, and who carries it out, is agreed.",
    "incident_contact_named": "A contact for incidents is named on both sides and was reached once for a test.",
    "key_in_secret_store": "The key is kept in a secret store, and its rotation before its expiry has an owner.",
    "access_reviewed": "Who can use the key and read the results was reviewed, with a date for the next review.",
}

CHECKLIST_ITEMS: Final[Mapping[str, ChecklistItem]] = MappingProxyType(
    {
        name: ChecklistItem(name, checklist, text)
        for checklist, items in ((Checklist.DIRECTIONALITY, _DIRECTIONALITY), (Checklist.COMPLIANCE, _COMPLIANCE))
        for name, text in items.items()
    }
)
"""All items by id, in the order in which they are shown."""
