"""The permission table: what each route needs. A route without a row is no route: the application does not start."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import flask

from api.dashboard.route_names import DASHBOARD_ROUTES
from api.http.version_prefix import VERSION_PREFIX
from shared.domain.access.caller import Permission

_VARIABLE: Final = re.compile(r"<(?:\w+:)?(\w+)>")
_AUTOMATIC_METHODS: Final = frozenset({"HEAD", "OPTIONS"})

ROUTE_PERMISSIONS: Final[Mapping[str, Permission]] = MappingProxyType(
    {
        "POST /run-basket": Permission.SUBMIT,
        "POST /run-agent": Permission.SUBMIT,
        "POST /run-basket/batch": Permission.SUBMIT,
        "GET /execution-logs/{execution_id}": Permission.READ,
        "GET /executions/{execution_id}": Permission.READ,
        "DELETE /executions/{execution_id}": Permission.OPERATE,
        "GET /executions/{execution_id}/result": Permission.READ_PAYLOADS,
        "GET /executions/{execution_id}/input": Permission.READ_PAYLOADS,
        "GET /executions/{execution_id}/outputs/{step}": Permission.READ_PAYLOADS,
        "POST /executions/{execution_id}/cancel": Permission.SUBMIT,
        "POST /executions/{execution_id}/retry": Permission.SUBMIT,
        "POST /executions/actions": Permission.OPERATE,
        "GET /executions": Permission.READ,
        "POST /executions/poll": Permission.READ,
        "GET /executions/changes": Permission.READ,
        "GET /executions/stats": Permission.READ,
        "GET /workers": Permission.OPERATE,
        "GET /dead-letters": Permission.OPERATE,
        "POST /dead-letters/{letter_id}/requeue": Permission.OPERATE,
        "POST /dead-letters/{letter_id}/dismiss": Permission.OPERATE,
        "GET /consumers": Permission.READ,
        "PUT /consumers/{name}": Permission.CONSUME,
        "DELETE /consumers/{name}": Permission.CONSUME,
        "GET /consumers/{name}/changes": Permission.READ,
        "POST /consumers/{name}/ack": Permission.CONSUME,
        "GET /agents": Permission.READ,
        "GET /agents/{name}": Permission.READ,
        "GET /baskets": Permission.READ,
        "GET /baskets/{name}": Permission.READ,
        "POST /create-basket": Permission.WRITE_BASKETS,
        "DELETE /baskets/{name}": Permission.WRITE_BASKETS,
        "GET /logs": Permission.READ_PAYLOADS,
        "GET /agent-logs/{name}": Permission.READ_PAYLOADS,
        "GET /me": Permission.IDENTIFY,
        "GET /keys": Permission.ADMINISTER,
        "POST /keys": Permission.ADMINISTER,
        "GET /keys/{key_id}": Permission.ADMINISTER,
        "POST /keys/{key_id}/rotate": Permission.ADMINISTER,
        "DELETE /keys/{key_id}": Permission.ADMINISTER,
        "GET /integrations": Permission.ADMINISTER,
        "POST /integrations": Permission.ADMINISTER,
        "GET /integrations/{integration_id}": Permission.ADMINISTER,
        "PUT /integrations/{integration_id}": Permission.ADMINISTER,
        "POST /integrations/{integration_id}/review": Permission.ADMINISTER,
        "POST /integrations/{integration_id}/approve": Permission.ADMINISTER,
        "POST /integrations/{integration_id}/request-changes": Permission.ADMINISTER,
        "POST /integrations/{integration_id}/activate": Permission.ADMINISTER,
        "POST /integrations/{integration_id}/suspend": Permission.ADMINISTER,
        "PUT /integrations/{integration_id}/checklist": Permission.ADMINISTER,
        "GET /integrations/{integration_id}/compliance": Permission.ADMINISTER,
        "GET /audit": Permission.READ_AUDIT,
        "GET /health": Permission.OPTIONAL,
        "GET /ready": Permission.PUBLIC,
        "GET /metrics": Permission.METRICS,
        "GET /openapi.json": Permission.PUBLIC,
        "GET /docs": Permission.PUBLIC,
        "GET /docs/{file}": Permission.PUBLIC,
        "GET /problems/{code}": Permission.PUBLIC,
        **dict.fromkeys(DASHBOARD_ROUTES, Permission.SESSION),
    }
)

STARTS_RUNS: Final = frozenset(
    {
        "POST /run-basket",
        "POST /run-agent",
        "POST /run-basket/batch",
        "POST /executions/{execution_id}/retry",
        "POST /executions/actions",
        "POST /dead-letters/{letter_id}/requeue",
    }
)
"""The routes that make runs: a caller whose integration is not active has none of them."""


def permissions_by_rule(app: flask.Flask) -> Mapping[tuple[str, str], Permission]:
    """Return the permission of each (rule, method) of ``app``; raises LookupError for a route without a row."""
    permissions: dict[tuple[str, str], Permission] = {}
    for (rule, method), operation in operations_by_rule(app).items():
        if operation not in ROUTE_PERMISSIONS:
            raise LookupError(f"{operation} has no row in the permission table")
        permissions[rule, method] = ROUTE_PERMISSIONS[operation]
    return permissions


def rules_that_start_runs(app: flask.Flask) -> frozenset[tuple[str, str]]:
    """Return the (rule, method) of each route of ``app`` that makes runs."""
    return frozenset((rule, method) for rule, method in _routes(app) if f"{method} {_to_path(rule)}" in STARTS_RUNS)


def operations_by_rule(app: flask.Flask) -> Mapping[tuple[str, str], str]:
    """Return the name in the tables of each (rule, method) of ``app``; HEAD has that of GET."""
    operations: dict[tuple[str, str], str] = {}
    for rule, method in _routes(app):
        operations[rule, method] = f"{method} {_to_path(rule)}"
        if method == "GET":
            operations[rule, "HEAD"] = operations[rule, method]
    return operations


def _routes(app: flask.Flask) -> Iterator[tuple[str, str]]:
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - _AUTOMATIC_METHODS:
            yield rule.rule, method


def _to_path(rule: str) -> str:
    """Return a rule of Flask as a path of the contract, without the version prefix."""
    return _VARIABLE.sub(r"{\1}", rule.removeprefix(VERSION_PREFIX))
