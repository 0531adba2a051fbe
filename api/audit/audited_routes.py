"""The audit table: the action of each route that writes. A route without a row is no route: the application does not
start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import flask
from werkzeug.routing import Rule

from api.http.version_prefix import VERSION_PREFIX

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
        "POST /dead-letters/{letter_id}/requeue": "dead_letter.requeue",
        "PUT /consumers/{name}": "consumer.put",
        "DELETE /consumers/{name}": "consumer.delete",
        "POST /consumers/{name}/ack": "consumer.ack",
        "POST /create-basket": "basket.create",
        "DELETE /baskets/{name}": "basket.delete",
        "POST /keys": "key.create",
        "POST /keys/{key_id}/rotate": "key.rotate",
        "DELETE /keys/{key_id}": "key.revoke",
    }
)

RUN_MAKING_ACTIONS: Final = frozenset({"execution.submit", "execution.retry", "dead_letter.requeue"})
"""Actions whose event is stored with the run that they make, by the same insert."""

READS_BY_POST: Final = frozenset({"POST /executions/poll"})
"""Routes that write nothing, whatever their method says."""

PAYLOAD_ROUTES: Final = frozenset(
    {
        "GET /execution-logs/{execution_id}",
        "GET /executions/{execution_id}",
        "GET /executions/{execution_id}/result",
        "GET /executions/{execution_id}/outputs/{step}",
        "POST /executions/poll",
        "GET /logs",
        "GET /agent-logs/{name}",
    }
)
"""Routes whose replies show inputs, outputs or logs to callers who may see them."""

OTHER_ACTIONS: Final = (AUTH_FAILED, AUTH_DENIED, READ_PAYLOAD)
ACTIONS: Final = tuple(sorted({*AUDITED_ROUTES.values(), *OTHER_ACTIONS}))

_VARIABLE: Final = re.compile(r"<(?:\w+:)?(\w+)>")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def operations_by_rule(app: flask.Flask) -> Mapping[tuple[str, str], str]:
    """Return the operation (``POST /keys``) of each (rule, method) of ``app``.

    Raises LookupError for a route that writes and has no row in the audit table.
    """
    operations = {(rule, method): f"{method} {_to_path(rule)}" for rule, method in _routes(app.url_map.iter_rules())}
    for operation in operations.values():
        writes = operation.partition(" ")[0] not in _SAFE_METHODS and operation not in READS_BY_POST
        if writes and operation not in AUDITED_ROUTES:
            raise LookupError(f"{operation} has no row in the audit table")
    return operations


def _routes(rules: Iterable[Rule]) -> Iterator[tuple[str, str]]:
    for rule in rules:
        for method in rule.methods or ():
            yield rule.rule, method


def _to_path(rule: str) -> str:
    """Return a rule of Flask as a path of the contract, without the version prefix."""
    return _VARIABLE.sub(r"{\1}", rule.removeprefix(VERSION_PREFIX))
