"""Keys that an operator makes, rotates or revokes by a command, with an audit event of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from api.auth.audit_note import AuditNote
from api.auth.key_service import KeyService, without_key
from shared.bootstrap import Services
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.audit_event import Outcome, definition_text
from shared.errors import BucketError, OutcomeUnknown


class AuditedKeyService(KeyService):
    """The keys of a server, for the command of ``operator``; an event is stored before the write it tells of."""

    def __init__(self, services: Services, operator: str) -> None:
        super().__init__(services)
        self._services = services
        self._operator = operator

    def create(self, request: KeyRequest, created_by: str) -> dict[str, Any]:
        """Make a key and return its view, with the key itself."""
        with self._recorded("key.create", None, request.integrator) as note:
            view = super().create(request, created_by)
            note.object_id, note.after = view["id"], definition_text(without_key(view))
        return view

    def rotate(self, key_id: str, grace: timedelta, created_by: str) -> dict[str, Any]:
        """Make the successor of a key and return its view, with the key itself."""
        before = self.get(key_id)
        with self._recorded("key.rotate", key_id, before["integrator"]) as note:
            note.before = definition_text(before)
            view = super().rotate(key_id, grace, created_by)
            note.after = definition_text(without_key(view))
        return view

    def revoke(self, key_id: str) -> dict[str, Any]:
        """Revoke a key and return its view."""
        before = self.get(key_id)
        with self._recorded("key.revoke", key_id, before["integrator"]) as note:
            note.before = definition_text(before)
            view = super().revoke(key_id)
            note.after = definition_text(view)
        return view

    @contextmanager
    def _recorded(self, action: str, object_id: str | None, integrator: str) -> Iterator[AuditNote]:
        audit = self._services.audit
        note = AuditNote(
            at=self._services.clock.now(),
            action=action,
            subject=self._operator,
            key_id=None,
            integrator=integrator,
            address=None,
            object_id=object_id,
            request_id=None,
        )
        event_id = audit.begin(note.event(Outcome.UNKNOWN))
        try:
            yield note
        except BucketError as error:
            is_refused = error.http_status < HTTPStatus.INTERNAL_SERVER_ERROR
            outcome = Outcome.REFUSED if is_refused else Outcome.FAILED
            if not isinstance(error, OutcomeUnknown):  # which the event says already
                audit.complete(event_id, note.event(outcome, error.error_code))
            raise
        audit.complete(event_id, note.event(Outcome.OK))
