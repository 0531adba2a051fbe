"""The class table: which bucket a request to each route is taken from. A route without a row is no route."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import flask

from api.auth.route_permissions import operations_by_rule
from api.dashboard.route_names import DASHBOARD_ROUTES
from shared.limits import LimitClass

ROUTE_CLASSES: Final[Mapping[str, LimitClass | None]] = MappingProxyType(
    {
        "POST /run-basket": LimitClass.SUBMIT,
        "POST /run-agent": LimitClass.SUBMIT,
        "POST /run-basket/batch": LimitClass.SUBMIT,
        "POST /executions/{execution_id}/cancel": LimitClass.SUBMIT,
        "POST /executions/{execution_id}/retry": LimitClass.SUBMIT,
        "POST /executions/actions": LimitClass.SUBMIT,
        "POST /dead-letters/{letter_id}/requeue": LimitClass.SUBMIT,
        "POST /dead-letters/{letter_id}/dismiss": LimitClass.SUBMIT,
        "DELETE /executions/{execution_id}": LimitClass.SUBMIT,
        "GET /execution-logs/{execution_id}": LimitClass.POLL,
        "GET /executions/{execution_id}": LimitClass.POLL,
        "GET /executions/{execution_id}/result": LimitClass.POLL,
        "GET /executions/{execution_id}/input": LimitClass.LIST,
        "GET /executions/{execution_id}/outputs/{step}": LimitClass.POLL,
        "POST /executions/poll": LimitClass.POLL,
        "GET /executions/changes": LimitClass.POLL,
        "GET /consumers/{name}/changes": LimitClass.POLL,
        "POST /consumers/{name}/ack": LimitClass.POLL,
        "GET /executions": LimitClass.LIST,
        "GET /executions/stats": LimitClass.LIST,
        "GET /workers": LimitClass.LIST,
        "GET /dead-letters": LimitClass.LIST,
        "GET /consumers": LimitClass.LIST,
        "PUT /consumers/{name}": LimitClass.LIST,
        "DELETE /consumers/{name}": LimitClass.LIST,
        "GET /agents": LimitClass.LIST,
        "GET /agents/{name}": LimitClass.LIST,
        "GET /baskets": LimitClass.LIST,
        "GET /baskets/{name}": LimitClass.LIST,
        "GET /logs": LimitClass.LIST,
        "GET /agent-logs/{name}": LimitClass.LIST,
        "GET /me": LimitClass.LIST,
        "POST /create-basket": LimitClass.ADMIN,
        "DELETE /baskets/{name}": LimitClass.ADMIN,
        "GET /keys": LimitClass.ADMIN,
        "POST /keys": LimitClass.ADMIN,
        "GET /keys/{key_id}": LimitClass.ADMIN,
        "POST /keys/{key_id}/rotate": LimitClass.ADMIN,
        "DELETE /keys/{key_id}": LimitClass.ADMIN,
        "GET /integrations": LimitClass.ADMIN,
        "POST /integrations": LimitClass.ADMIN,
        "GET /integrations/{integration_id}": LimitClass.ADMIN,
        "PUT /integrations/{integration_id}": LimitClass.ADMIN,
        "POST /integrations/{integration_id}/review": LimitClass.ADMIN,
        "POST /integrations/{integration_id}/approve": LimitClass.ADMIN,
        "POST /integrations/{integration_id}/request-changes": LimitClass.ADMIN,
        "POST /integrations/{integration_id}/activate": LimitClass.ADMIN,
        "POST /integrations/{integration_id}/suspend": LimitClass.ADMIN,
        "PUT /integrations/{integration_id}/checklist": LimitClass.ADMIN,
        "GET /integrations/{integration_id}/compliance": LimitClass.ADMIN,
        "GET /audit": LimitClass.ADMIN,
        # For everyone, or for those who watch the server: no key is counted.
        "GET /health": None,
        "GET /ready": None,
        "GET /metrics": None,
        "GET /openapi.json": None,
        "GET /docs": None,
        "GET /docs/{file}": None,
        "GET /problems/{code}": None,
        **dict.fromkeys(DASHBOARD_ROUTES),
    }
)


def classes_by_rule(app: flask.Flask) -> Mapping[tuple[str, str], LimitClass | None]:
    """Return the class of each (rule, method) of ``app``; raises LookupError for a route without a row."""
    classes: dict[tuple[str, str], LimitClass | None] = {}
    for (rule, method), operation in operations_by_rule(app).items():
        if operation not in ROUTE_CLASSES:
            raise LookupError(f"{operation} has no row in the table of limit classes (api/limits/route_classes.py)")
        classes[rule, method] = ROUTE_CLASSES[operation]
    return classes
