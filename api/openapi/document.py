"""Builds the OpenAPI document: the routes that the application has, with their rows of the operation table."""

from __future__ import annotations

import http
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from werkzeug.http import HTTP_STATUS_CODES

from api.auth.route_permissions import ROUTE_PERMISSIONS
from api.http.problems import MEDIA_TYPE
from api.http.version_prefix import VERSION_PREFIX
from api.limits.route_classes import ROUTE_CLASSES
from api.openapi.collection_schemas import COLLECTION_SCHEMAS
from api.openapi.components import COMMON_HEADERS, HEADER_NAMES, HEADERS, LIMIT_HEADERS, LINKS, PARAMETERS
from api.openapi.fleet.schemas import FLEET_SCHEMAS
from api.openapi.json_schema import JsonObject, ref
from api.openapi.operation import ErrorTypes, Operation, ResponseSpec
from api.openapi.operation_descriptions import DESCRIPTIONS
from api.openapi.operation_table import OPERATIONS
from api.openapi.request_schemas import build_request_schemas
from api.openapi.response_schemas import RESPONSE_SCHEMAS
from api.openapi.trust_schemas import TRUST_SCHEMAS
from shared import errors
from shared.domain.access.caller import Permission
from shared.limits import LimitClass

_SCHEMA_REF_PREFIX: Final = "#/components/schemas/"
_METHODS: Final = frozenset({"get", "post", "put", "delete", "patch"})
_COMMON_ERRORS: Final[ErrorTypes] = (errors.ValidationFailed, errors.InternalError)
_REFUSALS: Final[ErrorTypes] = (errors.Unauthenticated, errors.Forbidden)
_AUTH_ERRORS: Final[Mapping[Permission, ErrorTypes]] = {Permission.PUBLIC: ()}
_WITH_RETRY_AFTER: Final = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE)
_DESCRIPTION: Final = f"""\
Bucket runs baskets of agents for other systems. `POST` a run, get an `execution_id` at once, and poll `status_url`
until `done` is true; come back after `poll_after_ms`. There are no callbacks.

- Every path exists at the root and again under `{VERSION_PREFIX}`, except `/`, `/docs`, `/metrics`, `/problems/...` and
  `/openapi.json`, which are only at the root.
- If the server requires keys, each request has `Authorization: Bearer <key>`: on the page `/docs`, press Authorize and
  enter the key alone, without `Bearer`. An admin of the server makes keys.
- `HEAD` returns the same as `GET` without the body; `OPTIONS` returns `Allow`; any other method is 405
  `method_not_allowed` with `Allow`; any other path is 404 `not_found`, and a slash at the end makes another path.
- Every error is `application/problem+json`; decide by its `error_code`; the list of codes is closed.
- Bodies are JSON objects in UTF-8 of at most 1 MiB, under `application/json` or any `application/*+json`, nested at
  most 32 levels deep. Misspelt keys are refused with the right one (`validation_failed`), as is every unknown key of
  a basket's definition; other unknown keys are ignored and named in `warnings`. These are refused too: duplicate keys,
  integers beyond signed 64 bits, lone surrogates and NUL in a key (`invalid_json`), callback URLs
  (`callbacks_not_supported`), and credentials at any depth (`credentials_not_accepted`).
- Lists, the feed, logs, agents and baskets refuse query parameters that they do not know, with the nearest one
  (`validation_failed`); the routes of one execution ignore them. A known one that is given twice is refused.
- If cross-origin requests are allowed (`BUCKET_CORS_ORIGINS`), responses also have `Access-Control-Allow-Origin`,
  `Access-Control-Expose-Headers` and `Vary: Origin`.
"""


_KEY_SCHEME: Final[JsonObject] = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key (`bkt_...`), or a token of the issuer that the server trusts. `x-permission` says what an "
    "operation needs; docs/security.md has the table of roles.",
}


def build_document(generated: Mapping[str, Any]) -> JsonObject:
    """Return the whole document; ``generated`` is flask-smorest's, which has the routes and the schemas of bodies."""
    # `make examples` records the requests and responses again.
    examples = json.loads(Path(__file__).with_name("examples.json").read_bytes())
    paths = {path: _path_item(path, item, examples) for path, item in generated["paths"].items()}
    schemas = build_request_schemas(generated["components"]["schemas"])
    schemas |= RESPONSE_SCHEMAS | COLLECTION_SCHEMAS | FLEET_SCHEMAS | TRUST_SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Bucket",
            "version": generated["info"]["version"],
            "description": _DESCRIPTION,
            "contact": {"name": "The operators of this server"},
            "license": {"name": "Proprietary", "identifier": "LicenseRef-Proprietary"},
        },
        "servers": [{"url": "/"}, {"url": VERSION_PREFIX}],
        "tags": [{"name": tag["name"], "description": tag["description"]} for tag in generated["tags"]],
        "security": [{"key": []}, {}],  # without one, if the server does not require keys
        "paths": paths,
        "components": {
            "schemas": {name: schemas[name] for name in sorted(_referenced_schemas(paths, schemas))},
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "links": LINKS,
            "securitySchemes": {"key": _KEY_SCHEME},
        },
    }


def _referenced_schemas(document: Any, schemas: Mapping[str, JsonObject]) -> set[str]:
    """Return the names of the schemas that ``document`` refers to, directly or through other schemas."""
    names: set[str] = set()
    pending = [document]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            pending += item.values()
            name = str(item.get("$ref", "")).removeprefix(_SCHEMA_REF_PREFIX)
            if name in schemas and name not in names:
                names.add(name)
                pending.append(schemas[name])
    return names


def _path_item(path: str, item: Mapping[str, Any], examples: Mapping[str, Any]) -> JsonObject:
    names = {verb: f"{verb.upper()} {path}" for verb in item if verb in _METHODS}
    is_unversioned = any(_table_row(name).is_unversioned for name in names.values())
    path_members: JsonObject = {"servers": [{"url": "/"}]} if is_unversioned else {}
    return path_members | {verb: _operation_object(name, item[verb], examples) for verb, name in names.items()}


def _table_row(name: str) -> Operation:
    """Return the row of the table; a route without one gets no responses, and a test reports that it is missing."""
    return OPERATIONS.get(name, Operation({}))


def _operation_object(name: str, generated: Mapping[str, Any], examples: Mapping[str, Any]) -> JsonObject:
    row = _table_row(name)
    recorded = examples.get(name, {})
    operation: JsonObject = {
        "operationId": _operation_id(name),
        "summary": generated.get("summary", "").replace("``", ""),
        "tags": generated["tags"],
    }
    permission = ROUTE_PERMISSIONS[name]
    operation["x-permission"] = str(permission)
    if permission is Permission.PUBLIC:
        operation["security"] = []
    if name in DESCRIPTIONS:
        operation["description"] = DESCRIPTIONS[name]
    operation["parameters"] = [ref(parameter, "parameters") for parameter in (*row.parameters, "RequestId")]
    if row.body is not None:
        operation["requestBody"] = {
            "required": row.is_body_required,
            "content": {"application/json": {"schema": ref(row.body)} | _examples_member(recorded.get("requests"))},
        }
    limit_headers = () if ROUTE_CLASSES.get(name) is None else LIMIT_HEADERS
    operation["responses"] = {
        str(status): _response_object(reply, recorded.get(str(status)), limit_headers)
        for status, reply in chain(row.responses.items(), _problem_responses(name, row, permission))
    }
    return operation


def _operation_id(name: str) -> str:
    method, path = name.split(" ", 1)
    words = [word.strip("{}") for word in path.replace("-", "_").replace(".", "_").split("/") if word]
    return "_".join([method.lower(), *words]) if words else "get_root"


def _examples_member(examples: Any) -> JsonObject:
    return {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}


def _response_object(spec: ResponseSpec, examples: Any, limit_headers: Sequence[str]) -> JsonObject:
    names = (*COMMON_HEADERS, *limit_headers, *spec.headers)
    headers = {HEADER_NAMES.get(name, name): ref(name, "headers") for name in names}
    response: JsonObject = {"description": spec.description, "headers": headers}
    if spec.error_codes:  # not in the schema: generators would make a class of each operation's errors
        response["x-error-codes"] = list(spec.error_codes)
    if spec.links:
        response["links"] = {name: ref(name, "links") for name in spec.links}
    if spec.schema is not None:
        media = {"schema": spec.schema} | _examples_member(examples)
        response["content"] = dict.fromkeys(spec.media_types, media)
    return response


def _limit_errors(name: str) -> ErrorTypes:
    limit_class = ROUTE_CLASSES.get(name)
    if limit_class is LimitClass.SUBMIT and not name.endswith("/cancel"):
        return (errors.RateLimited, errors.QuotaExceeded)
    return () if limit_class is None else (errors.RateLimited,)


def _problem_responses(name: str, row: Operation, permission: Permission) -> Iterator[tuple[int, ResponseSpec]]:
    by_status: dict[int, list[str]] = {}
    for error_type in dict.fromkeys(
        (*_COMMON_ERRORS, *_AUTH_ERRORS.get(permission, _REFUSALS), *_limit_errors(name), *row.error_types)
    ):
        by_status.setdefault(error_type.http_status, []).append(error_type.error_code)
    for status, codes in sorted(by_status.items()):
        headers = ("Cache-None", "Retry-After-Refused") if status in _WITH_RETRY_AFTER else ("Cache-None",)
        # From werkzeug, as in the status line; the phrases of `http` differ between versions of Python.
        yield (
            status,
            ResponseSpec(
                f"{HTTP_STATUS_CODES[status]}: {', '.join(codes)}.",
                ref("Problem"),
                headers,
                (MEDIA_TYPE,),
                error_codes=tuple(codes),
            ),
        )
