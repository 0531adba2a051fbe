"""Holds what a stack really answers against docs/openapi.json: statuses, headers and bodies, whoever asked for them."""

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

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "openapi.json"
PREFIX: Final = "/api/v1"
PROBLEM: Final = "application/problem+json"
# What the server and HTTP itself add, and what CORS adds where it is on; none of them is an operation's own.
ANYWHERE: Final = {
    "connection", "content-length", "content-type", "date", "server", "transfer-encoding", "keep-alive",
    "vary", "access-control-allow-origin", "access-control-expose-headers",
}  # fmt: skip


class Contract:
    """The document, and what of an answer is not as it says."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    @cached_property
    def _paths(self) -> list[tuple[re.Pattern[str], str]]:
        """Each path's pattern, the plainest first: ``/executions/poll`` is no execution."""
        found = sorted(self._document["paths"], key=lambda path: (path.count("{"), path))
        return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), path) for path in found]

    def faults(self, method: str, url: str, answer: requests.Response) -> list[str]:
        """Answer what is wrong with ``answer``, each fault as a line."""
        where = f"{method} {url} -> {answer.status_code}"
        return [f"{where}: {fault}" for fault in self._faults(method, urlsplit(url), answer)]

    def _faults(self, method: str, url: Any, answer: requests.Response) -> Iterator[str]:
        verb = "get" if method == "HEAD" else method.lower()
        path = self._path_of(url.path, verb)
        item = self._document["paths"][path] if path else {}
        operation = item.get(verb)
        if operation is None:
            yield from self._of_no_operation(method, item, answer)
            return
        reply = operation["responses"].get(str(answer.status_code))
        if reply is None:
            yield f"the status is not in the contract of {path}, which has {', '.join(operation['responses'])}"
            return
        yield from self._of_headers(reply.get("headers", {}), answer)
        if method != "HEAD":
            yield from self._of_body(reply.get("content", {}), answer, whole="fields=" not in url.query)

    def _path_of(self, path: str, verb: str) -> str | None:
        """The path that is meant: of several the plainest that takes the method, as the application has it."""
        versioned = path.startswith(f"{PREFIX}/")
        bare = path.removeprefix(PREFIX) if versioned else path
        items = self._document["paths"]
        # A path with servers of its own stands at the root alone.
        found = [
            told
            for pattern, told in self._paths
            if pattern.fullmatch(bare) and not (versioned and "servers" in items[told])
        ]
        return next((told for told in found if verb in items[told]), found[0] if found else None)

    def _of_no_operation(self, method: str, item: Mapping[str, Any], answer: requests.Response) -> Iterator[str]:
        """What an address that is not there must answer, and a method that it does not take."""
        refused = {405} if item else {404, 405}
        expected = {200, 204, 404} if method == "OPTIONS" else refused
        if answer.status_code not in expected | {400, 500, 503}:
            yield f"neither the path and method nor this status is in the contract; expected {expected}"
        if answer.status_code == 405 and "Allow" not in answer.headers:
            yield "405 without Allow"
        if answer.status_code >= 400 and method != "HEAD":
            yield from self._of_form({"$ref": "#/components/schemas/Problem"}, answer.json())

    def _of_headers(self, told: Mapping[str, Any], answer: requests.Response) -> Iterator[str]:
        for name, reference in told.items():
            header = self._document["components"]["headers"][reference["$ref"].rpartition("/")[2]]
            if name in answer.headers:
                value: Any = answer.headers[name]
                if header["schema"].get("type") == "integer" and value.isdigit():
                    value = int(value)
                yield from (f"header {name}: {fault}" for fault in self._of_form(header["schema"], value))
            elif header.get("required"):
                yield f"the header {name} is missing"
        known = {name.lower() for name in told} | ANYWHERE
        for name in answer.headers:
            if name.lower() not in known:
                yield f"the header {name} is not in the contract"

    def _of_body(self, content: Mapping[str, Any], answer: requests.Response, *, whole: bool) -> Iterator[str]:
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        if not content:
            if answer.content and answer.status_code != 302:
                yield "it bears a body, and the contract has none"
            return
        media = content.get(kind) or content.get("*/*")
        if media is None:
            yield f"it is {kind or 'of no type'}, and the contract has {', '.join(content)}"
            return
        form = media["schema"]
        if kind.endswith("json") and form:
            # A poll that did not ask for some fields alone must bear all of them.
            strict = form["anyOf"][0] if whole and "anyOf" in form else form
            yield from self._of_form(strict, answer.json())

    def _of_form(self, form: Mapping[str, Any], value: Any) -> Iterator[str]:
        key = json.dumps(form, sort_keys=True)
        if key not in self._validators:
            self._validators[key] = jsonschema_rs.validator_for(
                {
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "components": self._document["components"],
                    **form,
                },
                validate_formats=True,
            )
        for fault in self._validators[key].iter_errors(value):
            yield f"{'/'.join(map(str, fault.instance_path)) or 'the body'}: {fault.message[:300]}"


@cache
def contract() -> Contract:
    """Answer the contract as it is checked in."""
    return Contract(json.loads(DOCUMENT.read_bytes()))


@contextmanager
def watched() -> Iterator[list[str]]:
    """Hold every answer that ``requests`` gets from a stack against the contract; yield the list of what is wrong."""
    faults: list[str] = []
    send = requests.Session.send

    def sending(session: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        answer = send(session, request, **more)
        if not more.get("stream") and urlsplit(request.url or "").hostname == "127.0.0.1":
            faults.extend(contract().faults(request.method or "GET", request.url or "", answer))
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "send", sending)
        yield faults


@pytest.fixture(scope="session")
def answers_watched() -> Iterator[list[str]]:
    """Watch all answers of the session, those that other fixtures ask for too."""
    with watched() as faults:
        yield faults


@pytest.fixture(autouse=True)
def as_the_contract_says(answers_watched: list[str]) -> Iterator[None]:
    """Fail a test in which anything was answered that is not as docs/openapi.json says."""
    yield
    faults = list(dict.fromkeys(answers_watched))
    answers_watched.clear()
    assert not faults, "not as docs/openapi.json says:\n" + "\n".join(faults[:20])
