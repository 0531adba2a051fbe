"""Writes keys and integrations for an operator's command, with an audit event of each write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from api.auth.audit_note import AuditNote
from api.auth.key_service import KeyService, without_key
from api.integrations.integration_service import IntegrationService
from api.integrations.integration_views import audited_compliance, audited_integration, audited_move
from shared.bootstrap import Services
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.audit_event import Outcome, definition_text
from shared.domain.access.integration import IntegrationAction, IntegrationDetails
from shared.errors import BucketError, OutcomeUnknown


class AuditedKeyService(KeyService):
    """The keys of a server, for the command of ``operator``; an event is stored before the write it tells of."""

    def __init__(self, services: Services, operator: str) -> None:
        super().__init__(services)
        self._services = services
        self._operator = operator

    def create(self, request: KeyRequest, created_by: str) -> dict[str, Any]:
        """Make a key and return its view, with the key itself."""
        with _recorded(self._services, self._operator, "key.create", None, request.integrator) as note:
            view = super().create(request, created_by)
            note.object_id, note.after = view["id"], definition_text(without_key(view))
        return view

    def rotate(self, key_id: str, grace: timedelta, created_by: str) -> dict[str, Any]:
        """Make the successor of a key and return its view, with the key itself."""
        before = self.get(key_id)
        with _recorded(self._services, self._operator, "key.rotate", key_id, before["integrator"]) as note:
            note.before = definition_text(before)
            view = super().rotate(key_id, grace, created_by)
            note.after = definition_text(without_key(view))
        return view

    def revoke(self, key_id: str) -> dict[str, Any]:
        """Revoke a key and return its view."""
        before = self.get(key_id)
        with _recorded(self._services, self._operator, "key.revoke", key_id, before["integrator"]) as note:
            note.before = definition_text(before)
            view = super().revoke(key_id)
            note.after = definition_text(view)
        return view


class AuditedIntegrationService(IntegrationService):
    """The register of integrations, for the command of ``operator``, with an audit event of each write."""

    def __init__(self, services: Services, operator: str) -> None:
        super().__init__(services)
        self._services = services
        self._operator = operator

    def request(self, details: IntegrationDetails, by: str) -> dict[str, Any]:
        """Register an integration and return its view."""
        with _recorded(self._services, self._operator, "integration.request", None, details.name) as note:
            view = super().request(details, by)
            note.object_id, note.after = view["id"], definition_text(audited_integration(view))
        return view

    def correct(self, integration_id: str, details: IntegrationDetails, by: str) -> dict[str, Any]:
        """Replace the details of an integration that is not in review yet, and return its view."""
        write = super().correct
        before = self.get(integration_id)
        return self._recorded_write(
            "integration.update", before, audited_integration, before, lambda: write(integration_id, details, by)
        )

    def move(
        self, integration_id: str, action: IntegrationAction, by: str, comment: str | None = None
    ) -> dict[str, Any]:
        """Move an integration and return its view; the first activation also returns its key."""
        write = super().move
        before = self.get(integration_id)
        return self._recorded_write(
            f"integration.{action}", before, audited_move, before, lambda: write(integration_id, action, by, comment)
        )

    def tick(self, integration_id: str, done_by_item: Mapping[str, bool], by: str) -> dict[str, Any]:
        """Tick off items of the checklists, or open them again, and return how far they are."""
        write = super().tick
        return self._recorded_write(
            "integration.checklist",
            self.get(integration_id),
            audited_compliance,
            self.compliance(integration_id),
            lambda: write(integration_id, done_by_item, by),
        )

    def _recorded_write(
        self,
        action: str,
        found: Mapping[str, Any],
        audited: Callable[[Mapping[str, Any]], dict[str, Any]],
        before: Mapping[str, Any],
        write: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        with _recorded(self._services, self._operator, action, found["id"], found["name"]) as note:
            note.before = definition_text(audited(before))
            view = write()
            note.after = definition_text(audited(view))
        return view


@contextmanager
def _recorded(
    services: Services, operator: str, action: str, object_id: str | None, integrator: str
) -> Iterator[AuditNote]:
    audit = services.audit
    note = AuditNote(
        at=services.clock.now(),
        action=action,
        subject=operator,
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
