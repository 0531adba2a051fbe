"""Answers every 4xx and 5xx as application/problem+json, the framework's own too; never shows what broke inside.

A traceback stays in the log, under the ``request_id`` that the client is told.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import flask
import flask_smorest  # type: ignore[import-untyped]
import marshmallow
import structlog
from marshmallow import fields
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from api.http.strict_json import shown
from shared import errors, ids
from shared.telemetry.lenient_json import encode

MEDIA_TYPE: Final = "application/problem+json"
_RETRY: Final = frozenset({429, 503})
_SERVER_FAULT: Final = 500
_CLIENT_FAULTS: Final = range(400, 500)
_OF_STATUS: Final[dict[int, type[errors.BucketError]]] = {
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
    503: errors.Unavailable,
}


class Problem(marshmallow.Schema):
    """The form of every error, for the OpenAPI document."""

    type = fields.String(required=True, metadata={"example": "/problems/basket_not_found"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata={"description": "A sentence a person can act on."})
    error_code = fields.String(required=True)
    message = fields.String(required=True, metadata={"description": "The same as detail."})
    details = fields.List(fields.Dict(), required=True, metadata={"description": "Each fault and where it is."})
    timestamp = fields.String(required=True)
    request_id = fields.String(required=True)


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's Api, whose errors take the one form and keep their headers."""

    ERROR_SCHEMA = Problem

    def handle_http_exception(self, error: HTTPException) -> flask.Response:
        """Answer what any other error is answered."""
        return of_http(error)


def register(app: flask.Flask) -> None:
    """Have ``app`` answer every error as a problem."""
    app.register_error_handler(errors.BucketError, of_bucket)
    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, of_unexpected)


def of_bucket(error: errors.BucketError) -> flask.Response:
    """Answer one of Bucket's own errors; what nobody outside can mend becomes a bare 500."""
    if error.http_status >= _SERVER_FAULT and not error.retryable:
        return of_unexpected(error)
    if error.http_status >= _SERVER_FAULT:
        _log().warning("request.refused", error_code=error.error_code, detail=error.message)
    return respond(error)


def of_http(error: HTTPException) -> flask.Response:
    """Answer one of the framework's errors, its headers kept."""
    original = getattr(error, "original_exception", None)
    if isinstance(original, errors.BucketError):
        return of_bucket(original)
    if original is not None:
        return of_unexpected(original)
    if error.response is not None or not error.code or error.code < _CLIENT_FAULTS.start:
        return flask.make_response(error.get_response())
    extra = (getattr(error, "data", None) or {}).get("headers") or {}
    kept = [pair for pair in error.get_headers() if pair[0].lower() not in {"content-type", "content-length"}]
    return respond(_mapped(error), headers=[*kept, *extra.items()])


def of_unexpected(error: Exception) -> flask.Response:
    """Answer 500 ``internal`` with nothing of ``error`` in it, and log it whole."""
    _log().error("request.failed", request_id=_request_id(), exc_info=error)
    return respond(errors.InternalError())


def respond(error: errors.BucketError, *, headers: Iterable[tuple[str, str]] = ()) -> flask.Response:
    """Answer the problem that ``error`` is to a client."""
    response = flask.Response(encode(body_of(error, _request_id())), status=error.http_status, content_type=MEDIA_TYPE)
    response.headers.extend(headers)
    response.headers["Cache-Control"] = "no-store"
    if error.http_status in _RETRY and "Retry-After" not in response.headers:
        # Callers that were refused together should not come back together.
        after = error.retry_after_s if error.retry_after_s is not None else random.randint(1, 2)  # noqa: S311
        response.headers["Retry-After"] = str(max(1, after))
    return response


def body_of(error: errors.BucketError, request_id: str) -> dict[str, Any]:
    """Answer the problem's members; an item of a batch that fails alone is told in these words too."""
    return {
        "type": f"/problems/{error.error_code}",
        "title": error.error_code.replace("_", " ").capitalize(),
        "status": error.http_status,
        "detail": error.message,
        "error_code": error.error_code,
        "message": error.message,
        "details": list(error.details),
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": request_id,
        **error.members,
    }


def _mapped(error: HTTPException) -> errors.BucketError:
    """Answer Bucket's word for the framework's error; the list of codes and statuses is closed."""
    if error.code == 404:  # noqa: PLR2004
        return nothing_here()
    if isinstance(error, MethodNotAllowed):
        takes = ", ".join(sorted(error.valid_methods or ()))
        return errors.MethodNotAllowed(f"{_path()} does not take {shown(flask.request.method)}; it takes {takes}")
    if error.code in _OF_STATUS:
        return _OF_STATUS[error.code]()
    if error.code in _CLIENT_FAULTS:
        return errors.ValidationFailed(_told(error))
    return errors.InternalError()


def _told(error: HTTPException) -> str:
    """Answer the sentence that our code gave to ``abort``; werkzeug's own speak to a person with a browser."""
    said = (getattr(error, "data", None) or {}).get("message") or error.description
    if isinstance(said, str) and said != type(error).description:
        return said
    return f"the request could not be understood ({error.name.lower()})"


def nothing_here() -> errors.NotFound:
    """Answer the error of an address that leads nowhere."""
    return errors.NotFound(f"there is nothing at {_path()}; look at its spelling, and for a slash at its end")


def _path() -> str:
    return shown(flask.request.path)


def _request_id() -> str:
    known = flask.g.get("request_id")
    if known is None:
        known = flask.g.request_id = ids.new_request_id()
    return str(known)


def _log() -> Any:
    return structlog.get_logger(__name__)
