"""The audit table: the action of each route that writes. A route without a row is no route: the application does not
start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from api.dashboard.route_names import FORMS
from shared.domain.access.audit_event import UNREADABLE

AUTH_FAILED: Final = "auth.failed"
AUTH_DENIED: Final = "auth.denied"
READ_PAYLOAD: Final = "execution.read_payload"

AUDITED_ROUTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "POST /run-basket": "execution.submit",
        "POST /run-agent": "execution.submit",
        "POST /run-basket/batch": "execution.submit",
        "POST /executions/{execution_id}/cancel": "execution.cancel",
        "POST /executions/{execution_id}/retry": "execution.retry",
        "POST /executions/actions": "execution.bulk_action",
        "POST /dead-letters/{letter_id}/requeue": "dead_letter.requeue",
        "POST /dead-letters/{letter_id}/dismiss": "dead_letter.dismiss",
        "DELETE /executions/{execution_id}": "execution.erase",
        "PUT /consumers/{name}": "consumer.put",
        "DELETE /consumers/{name}": "consumer.delete",
        "POST /consumers/{name}/ack": "consumer.ack",
        "POST /create-basket": "basket.create",
        "DELETE /baskets/{name}": "basket.delete",
        "POST /keys": "key.create",
        "POST /keys/{key_id}/rotate": "key.rotate",
        "DELETE /keys/{key_id}": "key.revoke",
        "POST /integrations": "integration.request",
        "PUT /integrations/{integration_id}": "integration.update",
        "POST /integrations/{integration_id}/review": "integration.review",
        "POST /integrations/{integration_id}/approve": "integration.approve",
        "POST /integrations/{integration_id}/request-changes": "integration.request_changes",
        "POST /integrations/{integration_id}/activate": "integration.activate",
        "POST /integrations/{integration_id}/suspend": "integration.suspend",
        "PUT /integrations/{integration_id}/checklist": "integration.checklist",
    }
)

RUN_MAKING_ACTIONS: Final = frozenset(
    {"execution.submit", "execution.retry", "execution.bulk_action", "dead_letter.requeue"}
)
"""Actions whose event is stored with the run that they make, by the same insert."""

WRITES_NOTHING: Final = frozenset({"POST /executions/poll", *FORMS})
"""Routes that write nothing themselves, whatever their method says; a form calls the route that does."""

PAYLOAD_ROUTES: Final = frozenset(
    {
        "GET /execution-logs/{execution_id}",
        "GET /executions/{execution_id}",
        "GET /executions/{execution_id}/result",
        "GET /executions/{execution_id}/input",
        "GET /executions/{execution_id}/outputs/{step}",
        "POST /executions/poll",
        "GET /logs",
        "GET /agent-logs/{name}",
    }
)
"""Routes whose replies show inputs, outputs or logs to callers who may see them."""

SUBJECT_KINDS: Final = ("key:", "token:", "bucketd", "anonymous", "several")
"""What each subject of an event begins with."""

SESSION_ACTIONS: Final = ("session.create", "session.delete")
"""A log-in to the dashboard, and a log-out."""
OTHER_ACTIONS: Final = (AUTH_FAILED, AUTH_DENIED, READ_PAYLOAD, UNREADABLE, *SESSION_ACTIONS)
ACTIONS: Final = tuple(sorted({*AUDITED_ROUTES.values(), *OTHER_ACTIONS}))

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def check_complete(operations: Iterable[str]) -> None:
    """Raise LookupError for an operation (``POST /keys``) that writes and has no row in the audit table."""
    for operation in operations:
        writes = operation.partition(" ")[0] not in _SAFE_METHODS and operation not in WRITES_NOTHING
        if writes and operation not in AUDITED_ROUTES:
            raise LookupError(f"{operation} has no row in the audit table")
