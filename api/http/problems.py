"""Error responses: every 4xx and 5xx, also the framework's, as application/problem+json (RFC 9457).

They never show internals: a traceback stays in the log, under the ``request_id`` that the client gets.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import flask
import flask_smorest  # type: ignore[import-untyped]
import structlog
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from api.http.strict_json import to_printable
from shared import errors, ids
from shared.domain.access.key_format import without_secrets
from shared.telemetry.lenient_json import encode_lenient

MEDIA_TYPE: Final = "application/problem+json"
_CLIENT_ERRORS: Final = range(400, 500)
_ERROR_BY_STATUS: Final[dict[int, type[errors.BucketError]]] = {
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
    503: errors.Unavailable,
}


class ProblemApi(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's Api, whose errors are problem+json too and keep their headers."""

    def handle_http_exception(self, error: HTTPException) -> flask.Response:
        """Return the same response as for any other HTTP error."""
        return handle_http_error(error)


def register_error_handlers(app: flask.Flask) -> None:
    """Make ``app`` return every error as problem+json."""
    app.register_error_handler(errors.BucketError, handle_bucket_error)
    app.register_error_handler(HTTPException, handle_http_error)
    app.register_error_handler(Exception, handle_unexpected_error)


def handle_bucket_error(error: errors.BucketError) -> flask.Response:
    """Return the response for one of Bucket's own errors; one that no client can fix becomes a plain 500."""
    if error.is_internal:
        return handle_unexpected_error(error)
    if error.retryable and error.http_status != HTTPStatus.TOO_MANY_REQUESTS:  # the access log has it already
        _log().warning("request.refused", error_code=error.error_code, detail=error.message)
    return problem_response(error)


def handle_http_error(error: HTTPException) -> flask.Response:
    """Return the response for one of the framework's errors, with the headers of that error."""
    original = getattr(error, "original_exception", None)
    if isinstance(original, errors.BucketError):
        return handle_bucket_error(original)
    if original is not None:
        return handle_unexpected_error(original)
    if error.response is not None or not error.code or error.code < _CLIENT_ERRORS.start:
        return flask.make_response(error.get_response())
    kept_headers = [pair for pair in error.get_headers() if pair[0].lower() not in {"content-type", "content-length"}]
    return problem_response(_map_http_error(error), headers=kept_headers)


def handle_unexpected_error(error: Exception) -> flask.Response:
    """Return 500 ``internal`` without any detail of ``error``, and log the error with its traceback."""
    _log().error("request.failed", request_id=_request_id(), exc_info=error)
    return problem_response(errors.InternalError())


def problem_response(error: errors.BucketError, *, headers: Iterable[tuple[str, str]] = ()) -> flask.Response:
    """Return the problem+json response for ``error``, with ``Retry-After`` if the same request may succeed later."""
    flask.g.error_code = error.error_code  # for the audit log
    response = flask.Response(
        encode_lenient(problem_body(error, _request_id())), status=error.http_status, content_type=MEDIA_TYPE
    )
    response.headers.extend(headers)
    response.headers.extend(error.response_headers)
    response.headers["Cache-Control"] = "no-store"
    if error.retryable and "Retry-After" not in response.headers:
        # Callers that were refused together should not come back together.
        retry_after_s = error.retry_after_s if error.retry_after_s is not None else random.randint(1, 2)  # noqa: S311
        response.headers["Retry-After"] = str(max(1, retry_after_s))
    return response


def problem_body(error: errors.BucketError, request_id: str) -> dict[str, Any]:
    """Return the members of the problem; a failed item of a batch has the same members.

    A key or a token that was sent in a path, or as some other id, is not repeated.
    """
    message = without_secrets(error.message)
    return {
        "type": f"/problems/{error.error_code}",
        "title": error.error_code.replace("_", " ").capitalize(),
        "status": error.http_status,
        "detail": message,
        "error_code": error.error_code,
        "message": message,
        "details": [_without_secrets(each) for each in error.details],
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": request_id,
        **error.extension_members,
    }


def _without_secrets(detail: Mapping[str, Any]) -> dict[str, Any]:
    return {name: without_secrets(value) if isinstance(value, str) else value for name, value in detail.items()}


def _map_http_error(error: HTTPException) -> errors.BucketError:
    """Return Bucket's error for one of the framework's; the list of codes and statuses is closed."""
    if error.code == 404:  # noqa: PLR2004
        return route_not_found()
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return errors.MethodNotAllowed(
            f"{_request_path()} does not take {to_printable(flask.request.method)}; it takes {allowed}"
        )
    if error.code in _ERROR_BY_STATUS:
        return _ERROR_BY_STATUS[error.code]()
    if error.code in _CLIENT_ERRORS:
        return errors.ValidationFailed(_abort_message(error))
    return errors.InternalError()


def _abort_message(error: HTTPException) -> str:
    """Return the description that ``error`` was raised with; werkzeug's own are for a person with a browser."""
    if error.description is not None and error.description != type(error).description:
        return error.description
    return f"the request could not be understood ({error.name.lower()})"


def route_not_found() -> errors.NotFound:
    """Return the error for a path that no route matches."""
    return errors.NotFound(f"there is nothing at {_request_path()}; look at its spelling, and for a slash at its end")


def _request_path() -> str:
    return to_printable(flask.request.path)


def _request_id() -> str:
    request_id = flask.g.get("request_id")
    if request_id is None:
        request_id = flask.g.request_id = ids.new_request_id()
    return str(request_id)


def _log() -> Any:
    return structlog.get_logger(__name__)
