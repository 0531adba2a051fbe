"""Routes of the API reference: GET /openapi.json, and the page /docs (Swagger UI), which loads from no other origin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import flask
import orjson
from flask import request

from api.http import problems
from api.http.etags import if_none_match_names
from api.http.request_body import Blueprint
from api.openapi.components import DOCS_FILES
from api.openapi.document import build_document
from api.openapi.problem_texts import load_problem_texts

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; "  # the page's widgets set their styles inline
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_DIR: Final = Path(__file__).parent / "page"


def blueprint(describe: Callable[[], Mapping[str, Any]]) -> Blueprint:
    """Build the blueprint; ``describe`` returns flask-smorest's document once all routes are registered."""
    blp = Blueprint("reference", __name__, description="This document, and a page to try the API")

    @cache
    def contract() -> tuple[bytes, str]:
        body = orjson.dumps(build_document(describe()))
        return body, hashlib.sha256(body).hexdigest()[:32]

    @blp.route("/openapi.json")
    def openapi() -> flask.Response:
        """Get this document, in OpenAPI 3.1."""
        body, digest = contract()
        headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache"}
        if "If-None-Match" in request.headers and if_none_match_names(digest):
            return flask.Response(status=304, headers=headers)
        return flask.Response(body, headers=headers, mimetype="application/json")

    @blp.route("/docs")
    def docs() -> flask.Response:
        """Get a page to read this document and to try the API; it loads nothing from other origins."""
        return _page()

    @blp.route("/docs/<file>")
    def docs_file(file: str) -> flask.Response:
        """Get a script, a style or an icon of that page."""
        if file not in DOCS_FILES:  # the other files of the package are never served
            raise problems.route_not_found()
        own, vendored = _PAGE_DIR / file, resources.files("flask_swagger_ui") / "dist" / file
        content = (own if own.exists() else vendored).read_bytes()
        return flask.Response(content, headers={"Cache-Control": "public, max-age=3600"}, mimetype=DOCS_FILES[file])

    @blp.route("/problems/<code>")
    def problem(code: str) -> flask.Response:
        """Get what an error code means and what to do about it: the ``type`` of every problem leads here."""
        text = load_problem_texts().get(code)
        if text is None:
            raise problems.route_not_found()
        return flask.Response(text, headers={"Cache-Control": "public, max-age=3600"}, mimetype="text/plain")

    return blp


def _page() -> flask.Response:
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
    }
    return flask.Response((_PAGE_DIR / "index.html").read_bytes(), headers=headers, mimetype="text/html")
