"""The audit note of a request: what the audit log will say of a write, filled in while the request is served.

A request that the audit log does not tell of has none, and then nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask.globals import app_ctx

from shared.domain.access.audit_event import AuditEvent, Outcome, definition_text


@dataclass(slots=True)
class AuditNote:
    """Who does what to which object; ``event_id`` is set once the event is stored, before the write."""

    at: datetime
    action: str
    subject: str
    key_id: str | None
    integrator: str | None
    address: str | None
    object_id: str | None
    request_id: str | None
    event_id: str | None = None
    before: str | None = None
    after: str | None = None

    def event(self, outcome: Outcome, error_code: str | None = None) -> AuditEvent:
        """Return the event, now that its outcome is known."""
        return AuditEvent(
            at=self.at,
            action=self.action,
            outcome=outcome,
            subject=self.subject,
            key_id=self.key_id,
            integrator=self.integrator,
            address=self.address,
            object=self.object_id,
            request_id=self.request_id,
            error_code=error_code,
            before=self.before,
            after=self.after,
        )

    def run_event(self) -> Mapping[str, str]:
        """Return what the document of a run must hold, so that its event can be made of it."""
        values = {
            "action": self.action,
            "subject": self.subject,
            "key_id": self.key_id,
            "address": self.address,
            "object": self.object_id,
        }
        return {name: value for name, value in values.items() if value is not None}


def has_note() -> bool:
    """Return whether the audit log will tell of this request: if not, nothing needs to be read for it."""
    return app_ctx.g.get("audit_note") is not None


def record_object(
    object_id: str | None = None,
    *,
    integrator: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Record what this request acts on: its id if the path does not have it, whose it is, its definition.

    A handler may call it before and after the write; what is not given stays as it was recorded before.
    """
    note: AuditNote | None = app_ctx.g.get("audit_note")
    if note is None:
        return
    note.object_id = object_id or note.object_id
    note.integrator = integrator or note.integrator
    note.before = note.before if before is None else definition_text(before)
    note.after = note.after if after is None else definition_text(after)


def record_reads(execution_ids: Iterable[str]) -> None:
    """Record the runs whose payloads this response shows, for a route whose path does not name the run."""
    app_ctx.g.audit_reads = execution_ids
