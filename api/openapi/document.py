"""Makes the OpenAPI document: the routes that the application has, with what the table says of each."""

from __future__ import annotations

import http
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from api.http.version_prefix import PREFIX
from api.openapi import bulk_operations, catalogue_operations, feed_operations
from api.openapi.components import ALWAYS, HEADERS, LINKS, ON_THE_WIRE, PARAMETERS
from api.openapi.json_schema import Json, named
from api.openapi.operation_table import OPERATIONS
from api.openapi.operation_types import Operation, Reply
from api.openapi.request_schemas import bodies
from api.openapi.response_schemas import REPLIES
from shared import errors
from shared.errors import BucketError

PROBLEM: Final = "application/problem+json"
_FORM: Final = "#/components/schemas/"
_ROOT_ALONE: Final = [{"url": "/"}]
_VERB: Final = frozenset({"get", "post", "put", "delete", "patch"})
_ANYWHERE: Final = (errors.ValidationFailed, errors.InternalError)
_RETRY: Final = frozenset({429, 503})

_ABOUT: Final = f"""\
Bucket runs baskets of agents for other systems. `POST` a run, get an `execution_id` at once, and poll `status_url`
until `done` is true; come back after `poll_after_ms`. There are no callbacks.

- Every path stands at the root and again under `{PREFIX}`, but for `/`, `/docs`, `/metrics` and `/openapi.json`.
- `HEAD` answers as `GET` without the body; `OPTIONS` answers with `Allow`; any other method is 405
  `method_not_allowed` with `Allow`; any other address is 404 `not_found`, and a slash at the end makes another address.
- Every error is `application/problem+json`; decide by its `error_code`, whose list is closed.
- Bodies are JSON objects in UTF-8 of at most 1 MiB, under `application/json` or any `application/*+json`, nested at
  most 32 levels deep. Unknown keys are ignored and named in `warnings`, those of a `config` and of the steps of a
  graph too. Refused are keys that stand twice, integers beyond signed 64 bits, lone surrogates and NUL in a key
  (`invalid_json`), addresses to call back (`callbacks_not_supported`), and credentials at any depth
  (`credentials_not_accepted`).
- Unknown query parameters are ignored; a known one that is given twice is refused (`validation_failed`).
- Where cross-origin requests are allowed (`BUCKET_CORS_ORIGINS`), answers also bear `Access-Control-Allow-Origin`,
  `Access-Control-Expose-Headers` and `Vary: Origin`.
"""


def document(generated: Mapping[str, Any]) -> Json:
    """Answer the whole document; ``generated`` is flask-smorest's, which knows the routes and the bodies' schemas."""
    examples = _examples()
    paths = {path: _path(path, item, examples) for path, item in generated["paths"].items()}
    forms = (
        bodies(generated["components"]["schemas"])
        | REPLIES
        | bulk_operations.FORMS
        | feed_operations.FORMS
        | catalogue_operations.FORMS
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Bucket", "version": generated["info"]["version"], "description": _ABOUT},
        "servers": [{"url": "/"}, {"url": PREFIX}],
        "tags": [{"name": tag["name"], "description": tag["description"]} for tag in generated["tags"]],
        "paths": paths,
        "components": {
            "schemas": {name: forms[name] for name in sorted(_reached(paths, forms))},
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "links": LINKS,
        },
    }


def _reached(told: Any, forms: Mapping[str, Json]) -> set[str]:
    """The names of the forms that ``told`` refers to, and those that they refer to."""
    found: set[str] = set()
    waiting = [told]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            name = str(item.get("$ref", "")).removeprefix(_FORM)
            if name in forms and name not in found:
                found.add(name)
                waiting.append(forms[name])
    return found


def _path(path: str, item: Mapping[str, Any], examples: Mapping[str, Any]) -> Json:
    verbs = {verb: operation for verb, operation in item.items() if verb in _VERB}
    told = {verb: _operation(f"{verb.upper()} {path}", operation, examples) for verb, operation in verbs.items()}
    alone = any(_of(f"{verb.upper()} {path}").at_root_alone for verb in verbs)
    shared: Json = {"servers": _ROOT_ALONE} if alone else {}
    return shared | told


def _of(name: str) -> Operation:
    """The row of the table; a route that has none yet is told without replies, and a test says that it is missing."""
    return OPERATIONS.get(name, Operation({}))


def _operation(name: str, generated: Mapping[str, Any], examples: Mapping[str, Any]) -> Json:
    row = _of(name)
    shown = examples.get(name, {})
    operation: Json = {
        "operationId": _operation_id(name),
        "summary": generated.get("summary", "").replace("``", ""),
        "tags": generated["tags"],
    }
    if "description" in generated:
        operation["description"] = generated["description"]
    operation["parameters"] = [named(parameter, "parameters") for parameter in (*row.parameters, "RequestId")]
    if row.body is not None:
        operation["requestBody"] = {
            "required": row.body_required,
            "content": {"application/json": {"schema": named(row.body)} | _shown(shown.get("requests"))},
        }
    replies = {str(status): _reply(reply, shown.get(str(status))) for status, reply in row.replies.items()}
    operation["responses"] = replies | {str(status): problem for status, problem in _problems(row, shown)}
    return operation


def _operation_id(name: str) -> str:
    method, path = name.split(" ", 1)
    words = [word.strip("{}") for word in path.replace("-", "_").replace(".", "_").split("/") if word]
    return "_".join([method.lower(), *words]) if words else "get_root"


def _shown(examples: Any) -> Json:
    return {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}


def _headers(names: tuple[str, ...]) -> Json:
    return {ON_THE_WIRE.get(name, name): named(name, "headers") for name in (*ALWAYS, *names)}


def _reply(reply: Reply, examples: Any) -> Json:
    told: Json = {"description": reply.description, "headers": _headers(reply.headers)}
    if reply.links:
        told["links"] = {name: named(name, "links") for name in reply.links}
    if reply.form is not None:
        told["content"] = {reply.media_type: {"schema": reply.form} | _shown(examples)}
    return told


def _problems(row: Operation, shown: Mapping[str, Any]) -> Iterator[tuple[int, Json]]:
    by_status: dict[int, list[str]] = {}
    refusals: tuple[type[BucketError], ...] = (*_ANYWHERE, *row.refusals)
    for refusal in refusals:
        codes = by_status.setdefault(refusal.http_status, [])
        if refusal.error_code not in codes:
            codes.append(refusal.error_code)
    for status, codes in sorted(by_status.items()):
        headers = ("Cache-None", *(("Retry-After-Refused",) if status in _RETRY else ()))
        only = {"properties": {"status": {"const": status}, "error_code": {"enum": codes}}}
        form = {"allOf": [named("Problem"), only]}
        yield (
            status,
            {
                "description": f"{http.HTTPStatus(status).phrase}: {', '.join(codes)}.",
                "headers": _headers(headers),
                "content": {PROBLEM: {"schema": form} | _shown(shown.get(str(status)))},
            },
        )


@cache
def _examples() -> Mapping[str, Any]:
    """What was really asked and answered; ``make examples`` records it anew."""
    kept = Path(__file__).with_name("examples.json")
    found: Mapping[str, Any] = json.loads(kept.read_bytes()) if kept.exists() else {}
    return found


def codes() -> frozenset[str]:
    """Answer every code that some operation may refuse with."""
    kinds: set[type[BucketError]] = {*_ANYWHERE, errors.MethodNotAllowed}
    kinds |= {refusal for row in OPERATIONS.values() for refusal in row.refusals}
    return frozenset(kind.error_code for kind in kinds)
