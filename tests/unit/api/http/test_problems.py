"""Problem replies: every error has one form, keeps its headers, and shows no internal detail."""

from __future__ import annotations

import re
from typing import Any

import flask
import pytest
import werkzeug.exceptions
from werkzeug.test import TestResponse

from api.http import problems
from shared import errors

MEMBERS = {"type", "title", "status", "detail", "error_code", "message", "details", "timestamp", "request_id"}


def response_to(error: Exception, method: str = "GET", smorest: bool = False) -> TestResponse:
    app = flask.Flask(__name__)
    if smorest:
        app.config |= {"API_TITLE": "t", "API_VERSION": "1", "OPENAPI_VERSION": "3.1.0"}
        problems.register_error_handlers(app)
        problems.ProblemApi(app)
    else:
        problems.register_error_handlers(app)

    @app.get("/thing")
    def thing() -> Any:
        raise error

    return app.test_client().open("/thing", method=method)


def every_error(kind: type[errors.BucketError] = errors.BucketError) -> list[type[errors.BucketError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(leaf for child in children for leaf in every_error(child))]


@pytest.mark.parametrize("kind", every_error())
def test_each_of_our_errors_is_a_problem_of_its_own_status(kind: type[errors.BucketError]) -> None:
    response = response_to(kind())
    assert response.status_code == kind.http_status
    assert response.mimetype == "application/problem+json"
    assert set(response.json) == MEMBERS
    assert response.json["error_code"] == kind.error_code
    assert response.json["type"] == f"/problems/{kind.error_code}"
    assert response.json["status"] == kind.http_status
    assert response.json["message"] == response.json["detail"] != ""
    assert response.json["request_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", response.json["timestamp"])
    assert response.headers["Cache-Control"] == "no-store"
    assert ("Retry-After" in response.headers) == kind.retryable


@pytest.mark.parametrize(
    "error",
    [ValueError("hunter2"), errors.InternalError("hunter2"), errors.SpecError("hunter2"), RecursionError("hunter2")],
)
def test_an_internal_error_is_a_bare_500(error: Exception) -> None:
    response = response_to(error)
    assert (response.status_code, response.json["error_code"]) == (500, "internal")
    assert b"hunter2" not in response.data
    assert b"Traceback" not in response.data


def test_details_and_retry_after_are_sent() -> None:
    fault = {"pointer": "/a", "message": "b"}
    assert response_to(errors.ValidationFailed("no", details=[fault])).json["details"] == [fault]
    assert response_to(errors.Unavailable(retry_after_s=7)).headers["Retry-After"] == "7"
    assert response_to(errors.Unavailable(retry_after_s=0)).headers["Retry-After"] == "1"
    assert response_to(errors.Unavailable()).headers["Retry-After"] in {"1", "2"}


@pytest.mark.parametrize("smorest", [False, True])
@pytest.mark.parametrize("method", ["POST", "DELETE", "TRACE", "FOO"])
def test_another_method_is_405_and_allow_is_kept(method: str, smorest: bool) -> None:
    response = response_to(ValueError(), method, smorest)
    assert (response.status_code, response.json["error_code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert "GET, HEAD, OPTIONS" in response.json["detail"]


@pytest.mark.parametrize("smorest", [False, True])
def test_an_unknown_address_is_404_and_named(smorest: bool) -> None:
    app = flask.Flask(__name__)
    if smorest:
        app.config |= {"API_TITLE": "t", "API_VERSION": "1", "OPENAPI_VERSION": "3.1.0"}
        problems.ProblemApi(app)
    problems.register_error_handlers(app)
    response = app.test_client().get("/nowhere")
    assert (response.status_code, response.json["error_code"]) == (404, "not_found")
    assert "/nowhere" in response.json["detail"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (werkzeug.exceptions.BadRequest(), 400, "validation_failed"),
        (werkzeug.exceptions.NotAcceptable(), 400, "validation_failed"),
        (werkzeug.exceptions.UnprocessableEntity(), 400, "validation_failed"),
        (werkzeug.exceptions.RequestURITooLarge(), 400, "validation_failed"),
        (werkzeug.exceptions.RequestEntityTooLarge(), 413, "payload_too_large"),
        (werkzeug.exceptions.UnsupportedMediaType(), 415, "unsupported_media_type"),
        (werkzeug.exceptions.ServiceUnavailable(), 503, "unavailable"),
        (werkzeug.exceptions.BadGateway(), 500, "internal"),
        (werkzeug.exceptions.InternalServerError(), 500, "internal"),
    ],
)
@pytest.mark.parametrize("smorest", [False, True])
def test_the_frameworks_errors_get_the_nearest_code_of_the_closed_list(
    error: werkzeug.exceptions.HTTPException, status: int, code: str, smorest: bool
) -> None:
    response = response_to(error, smorest=smorest)
    assert (response.status_code, response.json["error_code"], response.json["status"]) == (status, code, status)
    assert "browser" not in response.json["detail"]
    assert set(response.json) == MEMBERS


def test_the_description_and_the_headers_of_an_abort_are_kept() -> None:
    assert response_to(werkzeug.exceptions.BadRequest("say which")).json["detail"] == "say which"
    limited = werkzeug.exceptions.ServiceUnavailable(retry_after=9)
    assert response_to(limited).headers["Retry-After"] == "9"


def test_head_gets_the_headers_and_no_body() -> None:
    response = response_to(errors.ExecutionNotFound(), "HEAD")
    assert (response.status_code, response.data) == (404, b"")
    assert response.mimetype == "application/problem+json"


def test_a_redirect_of_ours_stays() -> None:
    app = flask.Flask(__name__)
    app.add_url_rule("/old", view_func=lambda: flask.redirect("/new"), endpoint="old")
    problems.register_error_handlers(app)
    assert app.test_client().get("/old").headers["Location"] == "/new"
