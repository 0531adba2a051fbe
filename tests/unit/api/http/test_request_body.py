"""Reading of request bodies in Flask by the strict parser, and flask-smorest's arguments through it."""

from __future__ import annotations

import io
from typing import Any

import flask
import marshmallow
import pytest
from marshmallow import fields

from api.http import problems
from api.http.request_body import BODY_BYTES_MAX, Blueprint, LoadedBody, read_body
from api.http.schema_fields import BodySchema
from shared.errors import InvalidJson, PayloadTooLarge, UnsupportedMediaType, ValidationFailed


class Trickle(io.RawIOBase):
    """A stream that returns at most 1,000 bytes per read, as sockets do, and may end early or break."""

    def __init__(self, content: bytes, breaks: Exception | None = None) -> None:
        self.content, self.breaks, self.taken = io.BytesIO(content), breaks, 0

    def read(self, size: int = -1) -> bytes:
        piece = self.content.read(min(size, 1000))
        self.taken += len(piece)
        if not piece and self.breaks:
            raise self.breaks
        return piece


def request_of(
    content: bytes | Trickle = b"{}", kind: str | None = "application/json", length: int | None = None
) -> flask.Request:
    stream = content if isinstance(content, Trickle) else Trickle(content)
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "wsgi.input": stream, "wsgi.input_terminated": True}
    if kind is not None:
        environ["CONTENT_TYPE"] = kind
    if length is not None:
        environ["CONTENT_LENGTH"] = str(length)
    return flask.Request(environ)


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON; charset="UTF-8"',
        "application/merge-patch+json",
        "application/json; profile=x",
    ],
)
def test_json_by_any_of_its_names_is_taken(kind: str) -> None:
    assert read_body(request_of(b'{"a": 1}', kind)) == {"a": 1}


@pytest.mark.parametrize(
    "kind",
    [None, "", "text/plain", "text/json", "application/x-www-form-urlencoded", "application/json; charset=latin1"],
)
def test_another_content_type_is_415(kind: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        read_body(request_of(b'{"a": 1}', kind))
    with pytest.raises(UnsupportedMediaType):
        read_body(request_of(b'{"a": 1}', kind), optional=True)


def padded(size: int) -> bytes:
    return b'{"a": "' + b"x" * (size - 9) + b'"}'


def test_a_mebibyte_is_taken_and_one_byte_more_refused_even_without_a_length() -> None:
    assert len(read_body(request_of(padded(BODY_BYTES_MAX)))["a"]) == BODY_BYTES_MAX - 9
    stream = Trickle(padded(BODY_BYTES_MAX + 5000))
    with pytest.raises(PayloadTooLarge):
        read_body(request_of(stream))
    assert stream.taken == BODY_BYTES_MAX + 1


def test_a_length_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    stream = Trickle(b"{}")
    with pytest.raises(PayloadTooLarge):
        read_body(request_of(stream, length=BODY_BYTES_MAX + 1))
    assert stream.taken == 0


def test_a_body_shorter_than_its_length_is_refused_even_if_it_is_json() -> None:
    with pytest.raises(InvalidJson, match="2 bytes came of the 10"):
        read_body(request_of(b"{}", length=10))
    with pytest.raises(InvalidJson, match="broke off"):
        read_body(request_of(Trickle(b"{}", ConnectionResetError()), length=10))


def test_no_body_is_an_empty_one_only_if_it_is_optional() -> None:
    assert read_body(request_of(b"", None), optional=True) == {}
    assert read_body(request_of(b'{"reason": "x"}'), optional=True) == {"reason": "x"}
    with pytest.raises(InvalidJson, match="empty"):
        read_body(request_of(b""))


@pytest.mark.parametrize("content", [b"[]", b"1", b'"a"', b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationFailed, match="the body must be a JSON object"):
        read_body(request_of(content))


class Item(marshmallow.Schema):
    n = fields.Integer(strict=True, required=True)


UNKNOWN = "unknown field 'strange' was ignored"


class Submit(BodySchema):
    name = fields.String(required=True)
    items = fields.List(fields.Nested(Item))


@pytest.fixture
def client() -> flask.testing.FlaskClient:
    app = flask.Flask(__name__)
    app.config |= {"API_TITLE": "t", "API_VERSION": "1", "OPENAPI_VERSION": "3.1.0"}
    api = problems.ProblemApi(app)
    blueprint = Blueprint("b", __name__)

    @blueprint.route("/submit", methods=["POST"])
    @blueprint.arguments(Submit())
    def submit(body: LoadedBody) -> dict[str, Any]:
        return {"body": body, "raw": body.raw, "warnings": body.warnings}

    api.register_blueprint(blueprint)
    problems.register_error_handlers(app)
    return app.test_client()


def test_arguments_come_through_the_strict_parser_and_unknown_keys_do_not_matter(
    client: flask.testing.FlaskClient,
) -> None:
    response = client.post("/submit?strange=1", json={"name": "a", "strange": 1})
    assert response.json == {"body": {"name": "a"}, "raw": {"name": "a", "strange": 1}, "warnings": [UNKNOWN]}
    twice = client.post("/submit", data=b'{"name": 1, "name": 2}', content_type="application/json")
    assert (twice.status_code, twice.json["error_code"]) == (400, "invalid_json")
    assert client.post("/submit", data=b"x").status_code == 415


def test_a_body_that_breaks_the_schema_is_400_with_a_pointer_for_each_fault(client: flask.testing.FlaskClient) -> None:
    response = client.post("/submit", json={"items": [{"n": 1}, {"n": "x"}]})
    assert (response.status_code, response.json["error_code"]) == (400, "validation_failed")
    assert response.json["details"] == [
        {"pointer": "/name", "message": "Missing data for required field."},
        {"pointer": "/items/1/n", "message": "Not a valid integer."},
    ]
    assert "/name: Missing data" in response.json["detail"]
