"""The operations of the OpenAPI document that a server serves, with every ``$ref`` resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.auth.route_permissions import ROUTE_PERMISSIONS
from shared.domain.access.caller import Permission

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_KIND_BY_SEGMENT: Final = {"execution-logs": "executions", "agent-logs": "agents"}
"""The routes whose path does not name the collection of what they are about."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: a method and a path with its parameters, the schema of its body, and its documented statuses."""

    method: str
    path: str
    parameters: tuple[Mapping[str, Any], ...]
    body: Mapping[str, Any] | None
    is_body_required: bool
    statuses: frozenset[int]
    permission: Permission

    @property
    def name(self) -> str:
        """Return the method and the path, as in the permission table."""
        return f"{self.method} {self.path}"

    @property
    def collection(self) -> str:
        """Return the collection that the path is about: executions, consumers, ..."""
        first = self.path.split("/")[1]
        return _KIND_BY_SEGMENT.get(first, first)


def operations_of(document: Mapping[str, Any]) -> list[Operation]:
    """Return all operations of an OpenAPI document; one without a row in the permission table raises KeyError."""
    return [
        _operation(_resolve(document, item[method]), method.upper(), path)
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item
    ]


def _operation(row: Mapping[str, Any], method: str, path: str) -> Operation:
    body = row.get("requestBody")
    return Operation(
        method=method,
        path=path,
        parameters=tuple(row.get("parameters", ())),
        body=None if body is None else body["content"]["application/json"]["schema"],
        is_body_required=bool(body and body.get("required")),
        statuses=frozenset(int(status) for status in row["responses"] if status.isdigit()),
        permission=ROUTE_PERMISSIONS[f"{method} {path}"],
    )


def _resolve(document: Mapping[str, Any], value: Any, depth: int = 0) -> Any:
    """Return ``value`` with each reference replaced by what it refers to; a schema that contains itself is cut."""
    if isinstance(value, list):
        return [_resolve(document, each, depth) for each in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        if depth > 8:
            return {}
        target: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _resolve(document, target, depth + 1)
    # What a response looks like is checked elsewhere; its schemas refer to each other a lot.
    return {
        name: (dict.fromkeys(each) if name == "responses" else _resolve(document, each, depth))
        for name, each in value.items()
    }
