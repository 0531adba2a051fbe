"""Checks every real reply of a stack against docs/openapi.json: statuses, headers and bodies, in every test.

The schemas of the document are flat, because generators of clients fail on conditions. So the rules between the fields
of a reply, which only conditions could express, are checked here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import requests

from shared.domain.status import ExecutionStatus

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "openapi.json"
PREFIX: Final = "/api/v1"
PROBLEM: Final = "application/problem+json"
# Headers that the server and HTTP add, and CORS if it is on; no operation has to document them.
UNDOCUMENTED_HEADERS: Final = {
    "connection", "content-length", "content-type", "date", "server", "transfer-encoding", "keep-alive",
    "vary", "access-control-allow-origin", "access-control-expose-headers",
}  # fmt: skip
# Where a body has runs and baskets; elsewhere it may have data of callers and agents that looks like them.
ROW_LISTS: Final = ("executions", "changed", "baskets")
FINAL_STATUSES: Final = {str(status) for status in ExecutionStatus if status.is_final}


class OpenApiContract:
    """The OpenAPI document; finds what in a reply does not match it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    @cached_property
    def _paths(self) -> list[tuple[re.Pattern[str], str]]:
        """Return each path with its pattern, fewest parameters first: ``/executions/poll`` is no execution."""
        templates = sorted(self._document["paths"], key=lambda path: (path.count("{"), path))
        return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), path) for path in templates]

    def faults(self, method: str, url: str, response: requests.Response) -> list[str]:
        """Return what is wrong with ``response``, each fault as a line."""
        where = f"{method} {url} -> {response.status_code}"
        return [f"{where}: {fault}" for fault in self._faults(method, urlsplit(url), response)]

    def _faults(self, method: str, url: Any, response: requests.Response) -> Iterator[str]:
        if "Cache-Control" not in response.headers:
            yield "it does not say whether caches may keep it"
        verb = "get" if method == "HEAD" else method.lower()
        path = self._path_of(url.path, verb)
        item = self._document["paths"][path] if path else {}
        operation = item.get(verb)
        if operation is None:
            yield from self._check_unknown_operation(method, item, response)
            return
        documented = operation["responses"].get(str(response.status_code))
        if documented is None:
            yield f"the status is not in the contract of {path}, which has {', '.join(operation['responses'])}"
            return
        yield from self._check_headers(documented.get("headers", {}), response)
        if method != "HEAD":
            yield from self._check_body(documented.get("content", {}), response, whole="fields=" not in url.query)
            yield from _error_code_faults(documented.get("x-error-codes"), response)

    def _path_of(self, path: str, verb: str) -> str | None:
        """Return the path template: of several, the one with fewest parameters that has the method."""
        versioned = path.startswith(f"{PREFIX}/")
        bare = path.removeprefix(PREFIX) if versioned else path
        items = self._document["paths"]
        # A path with its own servers is at the root only.
        matches = [
            template
            for pattern, template in self._paths
            if pattern.fullmatch(bare) and not (versioned and "servers" in items[template])
        ]
        return next((template for template in matches if verb in items[template]), matches[0] if matches else None)

    def _check_unknown_operation(
        self, method: str, item: Mapping[str, Any], response: requests.Response
    ) -> Iterator[str]:
        """Check the reply to an unknown address, or to a method that the address does not have."""
        refused = {405} if item else {404, 405}
        expected = {200, 204, 404} if method == "OPTIONS" else refused
        if response.status_code not in expected | {400, 500, 503}:
            yield f"neither the path and method nor this status is in the contract; expected {expected}"
        if response.status_code == 405 and "Allow" not in response.headers:
            yield "405 without Allow"
        if response.status_code >= 400 and method != "HEAD":
            yield from self._check_schema({"$ref": "#/components/schemas/Problem"}, response.json())

    def _check_headers(self, headers: Mapping[str, Any], response: requests.Response) -> Iterator[str]:
        for name, reference in headers.items():
            header = self._document["components"]["headers"][reference["$ref"].rpartition("/")[2]]
            if name in response.headers:
                value: Any = response.headers[name]
                if header["schema"].get("type") == "integer" and value.isdigit():
                    value = int(value)
                yield from (f"header {name}: {fault}" for fault in self._check_schema(header["schema"], value))
            elif header.get("required"):
                yield f"the header {name} is missing"
        allowed = {name.lower() for name in headers} | UNDOCUMENTED_HEADERS
        for name in response.headers:
            if name.lower() not in allowed:
                yield f"the header {name} is not in the contract"

    def _check_body(self, content: Mapping[str, Any], response: requests.Response, *, whole: bool) -> Iterator[str]:
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if not content:
            if response.content:
                yield "it has a body, and the contract has none"
            return
        media = content.get(kind) or content.get("*/*")
        if media is None:
            yield f"it is {kind or 'of no type'}, and the contract has {', '.join(content)}"
            return
        schema = media["schema"]
        if kind.endswith("json") and schema:
            # A poll without ``fields`` must have all of them.
            strict = schema["anyOf"][0] if whole and "anyOf" in schema else schema
            yield from self._check_schema(strict, response.json())
            yield from rule_faults(response.json(), whole=whole)

    def _check_schema(self, schema: Mapping[str, Any], value: Any) -> Iterator[str]:
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            self._validators[key] = jsonschema_rs.validator_for(
                {
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "components": self._document["components"],
                    **schema,
                },
                validate_formats=True,
            )
        for fault in self._validators[key].iter_errors(value):
            yield f"{'/'.join(map(str, fault.instance_path)) or 'the body'}: {fault.message[:300]}"


def _error_code_faults(codes: list[str] | None, response: requests.Response) -> Iterator[str]:
    """Yield what is wrong with the code or the status in the body of an error; ``codes`` are None of other replies."""
    if codes is None or not response.content:
        return
    problem = response.json()
    if problem["error_code"] not in codes:
        yield f"the code {problem['error_code']} is not in the contract, which has {', '.join(codes)}"
    if problem["status"] != response.status_code:
        yield f"the body says status {problem['status']}"


def rule_faults(body: Any, *, whole: bool = True) -> Iterator[str]:
    """Yield each rule between fields that a run or a basket in ``body`` breaks; of a part, by the fields it has."""
    if not isinstance(body, dict):
        return
    rows = [row for name in ROW_LISTS for row in body.get(name) or ()]
    for row in (body, *rows, body.get("basket")):
        if isinstance(row, dict) and {"execution_id", "status", "done", "rev"} <= set(row) and "status_url" not in row:
            yield from _run_faults(row, whole=whole)
        if isinstance(row, dict) and "execution_strategy" in row and ("agents" in row) == ("steps" in row):
            yield "a basket must have either agents or steps"


def _run_faults(run: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    if run["done"] != (run["status"] in FINAL_STATUSES):
        yield f"done is {run['done']} beside the status {run['status']}"
    if run["done"]:
        if "poll_after_ms" in run:
            yield "a final run has poll_after_ms"
        null, not_null = ("waiting_for", "current_step"), ("finished_at",)
    else:
        if whole and "poll_after_ms" not in run and "finished_at" in run:
            yield "a live run has no poll_after_ms"
        null, not_null = ("finished_at", "result", "error"), ()
    yield from (f"{name} is not null beside the status {run['status']}" for name in null if run.get(name) is not None)
    yield from (f"{name} is null beside the status {run['status']}" for name in not_null if run.get(name, 0) is None)


@cache
def load_contract() -> OpenApiContract:
    """Return the contract as it is checked in."""
    return OpenApiContract(json.loads(DOCUMENT.read_bytes()))


@contextmanager
def checked_responses() -> Iterator[list[str]]:
    """Check every reply that ``requests`` gets from a stack against the contract; yield the list of faults."""
    faults: list[str] = []
    send = requests.Session.send

    def sending(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = send(session, request, **options)
        url = urlsplit(request.url or "")
        is_page = url.path == "/" or url.path.startswith("/ui/")  # the dashboard, which is for people
        if not options.get("stream") and url.hostname == "127.0.0.1" and not is_page:
            faults.extend(load_contract().faults(request.method or "GET", request.url or "", response))
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "send", sending)
        yield faults


@pytest.fixture(scope="session")
def recorded_violations() -> Iterator[list[str]]:
    """Check all replies of the session, also those to requests of other fixtures."""
    with checked_responses() as faults:
        yield faults


@pytest.fixture(autouse=True)
def responses_match_contract(recorded_violations: list[str]) -> Iterator[None]:
    """Fail a test in which a reply does not match docs/openapi.json."""
    recorded_violations.clear()  # what tests of other folders got in this process since
    yield
    faults = list(dict.fromkeys(recorded_violations))
    recorded_violations.clear()
    assert not faults, "not as docs/openapi.json says:\n" + "\n".join(faults[:20])
