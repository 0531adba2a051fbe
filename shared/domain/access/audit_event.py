"""An audit event: who did what to which object, from where, and how it ended; and its form for readers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from shared.domain.access.key_format import without_secrets
from shared.domain.access.safe_names import is_safe_name

BEGUN_MAX_S: Final = 60.0
"""An event whose write has begun and has not ended for this long, because its process died, ends as ``unknown``."""
UNREADABLE: Final = "audit.unreadable"
"""The action of the event that stands for a stored one that cannot be read."""
_KEPT_IF_READABLE: Final = ("key_id", "integrator", "address", "request_id")


class Outcome(StrEnum):
    """How what an event tells of has ended."""

    OK = "ok"
    REFUSED = "refused"
    """The request was refused (4xx) and nothing was changed."""
    FAILED = "failed"
    """The server could not serve it (5xx); nothing was changed."""
    UNKNOWN = "unknown"
    """It is not known whether it was done: a reply of the store was lost, or the process died."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event; it never holds a key, a token, or the payload of a run.

    ``object`` is the id or name of what was acted on, ``integrator`` whose it is, None if nobody knows. ``before`` and
    ``after`` are definitions as JSON text. ``repeated`` is how many more of the same kind were only counted.
    """

    at: datetime
    action: str
    outcome: Outcome
    subject: str
    key_id: str | None = None
    integrator: str | None = None
    address: str | None = None
    object: str | None = None
    request_id: str | None = None
    error_code: str | None = None
    repeated: int | None = None
    before: str | None = None
    after: str | None = None


def event_view(seq: int, event: AuditEvent) -> dict[str, Any]:
    """Return the event as readers see it, as JSON values; members that most events lack are left out if empty."""
    view: dict[str, Any] = {
        "seq": seq,
        "at": event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "subject": event.subject,
        "key_id": event.key_id,
        "integrator": event.integrator,
        "address": event.address,
        "action": event.action,
        "object": event.object,
        "outcome": str(event.outcome),
        "request_id": event.request_id,
    }
    if event.error_code is not None:
        view["error_code"] = event.error_code
    if event.repeated:
        view["repeated"] = event.repeated
    if event.before is not None:
        view["before"] = json.loads(event.before)
    if event.after is not None:
        view["after"] = json.loads(event.after)
    return view


def placeholder_event(document: Mapping[str, Any], event_id: object, at: datetime) -> AuditEvent:
    """Return the event that stands for a stored one that cannot be read, with those of its members that can be.

    ``at`` is its time if its own cannot be read.
    """
    own_at = document.get("at")
    kept = {name: document[name] for name in _KEPT_IF_READABLE if is_safe_name(document.get(name))}
    subject = document.get("subject")
    return AuditEvent(
        at=own_at if isinstance(own_at, datetime) else at,
        action=UNREADABLE,
        outcome=Outcome.UNKNOWN,
        subject=str(subject) if is_safe_name(subject) else "unknown",
        object=str(event_id) if is_safe_name(str(event_id)) else None,
        **kept,
    )


def definition_text(definition: Mapping[str, Any]) -> str:
    """Return a definition as the JSON text that an event stores; a key that somebody wrote into it is not in it."""
    return without_secrets(json.dumps(definition, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
