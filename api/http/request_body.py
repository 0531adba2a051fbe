"""Reads a request's JSON body, once and strictly, for every route; flask-smorest's parser comes here too.

The stream is read here, to one byte past the limit: ``MAX_CONTENT_LENGTH`` cuts a chunked body off in silence, and
flask-smorest's own parser goes round ``app.json``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import flask
import flask_smorest  # type: ignore[import-untyped]
import marshmallow
from flask.globals import request_ctx
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import ClientDisconnected

from api.http.body_policy import check_policy
from api.http.strict_json import canonical_json, json_pointer, parse
from shared.errors import InvalidJson, PayloadTooLarge, UnsupportedMediaType, ValidationFailed

BODY_BYTES_MAX: Final = 1024 * 1024
_DETAILS_MAX: Final = 100
_PARSED_BODY_KEY: Final = "bucket.body"  # where in the WSGI environ the body stands once it has been read
_UTF8: Final = frozenset({"utf-8", "utf8"})
_IDENTITY_ENCODINGS: Final = frozenset({"", "identity"})

BodyPolicy = Callable[[dict[str, Any], bytes], None]


def read_body(request: flask.Request, *, optional: bool = False, policy: BodyPolicy = check_policy) -> dict[str, Any]:
    """Answer the JSON object that ``request`` carries; ``{}`` for no body at all where it is ``optional``.

    ``policy`` says what it may not carry. A second call answers the same object without reading again. Raises
    UnsupportedMediaType, PayloadTooLarge, InvalidJson, ValidationFailed (not an object), CallbacksNotSupported and
    CredentialsNotAccepted.
    """
    known: dict[str, Any] | None = request.environ.get(_PARSED_BODY_KEY)
    if known is not None:
        return known
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise PayloadTooLarge
    if not optional:
        _check_content_type(request)
    raw = _read_stream(request, length)
    if optional and not raw:
        body: dict[str, Any] = {}
    else:
        _check_content_type(request)
        body = parse_json_object(raw, policy)
    request.environ[_PARSED_BODY_KEY] = body
    return body


def parse_json_object(raw: bytes, policy: BodyPolicy = check_policy) -> dict[str, Any]:
    """Answer the JSON object that ``raw`` writes, once it has been found free of callbacks and credentials."""
    body = parse(raw)
    if not isinstance(body, dict):
        raise ValidationFailed("the body must be a JSON object", details=[{"pointer": "", "message": "not an object"}])
    policy(body, raw)
    return body


def fingerprint(route: str, body: Any) -> str:
    """Answer the mark that equal requests share: SHA-256, in hex, of ``route`` (without prefix) and the parsed body."""
    return hashlib.sha256(route.encode() + b"\0" + canonical_json(body)).hexdigest()


def _check_content_type(request: flask.Request) -> None:
    if request.environ.get("HTTP_CONTENT_ENCODING", "").lower() not in _IDENTITY_ENCODINGS:
        raise UnsupportedMediaType("the body must not be compressed; send it without Content-Encoding")
    if request.environ.get("CONTENT_TYPE") == "application/json":
        return
    kind = request.mimetype
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType
    if request.mimetype_params.get("charset", "utf-8").lower() not in _UTF8:
        raise UnsupportedMediaType("the body must be JSON in UTF-8; leave the charset out or send charset=utf-8")


def _read_stream(request: flask.Request, length: int | None) -> bytes:
    """Answer the whole body; a server may hand it out in pieces, and a client may hang up halfway."""
    pieces = []
    left = BODY_BYTES_MAX + 1
    try:
        stream = request.stream
        while left > 0 and (piece := stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
    except (OSError, ClientDisconnected, ParseException):
        raise InvalidJson("the body broke off before its end") from None
    raw = b"".join(pieces)
    if len(raw) > BODY_BYTES_MAX:
        raise PayloadTooLarge
    if length is not None and len(raw) < length:
        raise InvalidJson(f"the body broke off: {len(raw)} bytes came of the {length} that Content-Length told")
    return raw


class StrictParser(FlaskParser):
    """Hands flask-smorest the strictly read body, ignores unknown keys, and refuses with 400, never 422."""

    POLICY: BodyPolicy = staticmethod(check_policy)
    DEFAULT_VALIDATION_STATUS = 400

    def parse(self, argmap: Any, req: flask.Request | None = None, *, location: str | None = None, **how: Any) -> Any:
        """Answer what ``argmap`` loads; a body by the straight way, for webargs asks at every turn where it reads."""
        if location != "json":
            return super().parse(argmap, req, location=location, **how)
        schema = argmap() if isinstance(argmap, type) else argmap
        try:
            return schema.load(read_body(request_ctx.request, policy=self.POLICY), unknown=marshmallow.EXCLUDE)
        except marshmallow.ValidationError as wrong:
            raise validation_error({location: wrong.messages}) from None

    def handle_error(
        self,
        error: marshmallow.ValidationError,
        req: flask.Request,  # noqa: ARG002  the signature is webargs'
        schema: marshmallow.Schema,  # noqa: ARG002
        *,
        error_status_code: int | None,  # noqa: ARG002
        error_headers: Mapping[str, str] | None,  # noqa: ARG002
    ) -> NoReturn:
        """Raise ValidationFailed with a detail for each fault, by JSON pointer or by the parameter's name."""
        raise validation_error(error.messages) from None


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """A flask-smorest blueprint whose arguments come through the strict parser."""

    ARGUMENTS_PARSER = StrictParser()


def validation_error(messages: Any) -> ValidationFailed:
    """Answer the refusal that marshmallow's messages, sorted by location, are to a caller."""
    details = list(_fault_details(messages))
    told = "; ".join(f"{detail.get('pointer', detail.get('parameter'))}: {detail['message']}" for detail in details[:3])
    more = f"; and {len(details) - 3} more" if len(details) > 3 else ""  # noqa: PLR2004  as many as are told
    return ValidationFailed(told + more, details=details[:_DETAILS_MAX])


def _fault_details(messages: Any) -> Iterator[dict[str, str]]:
    """Yield a detail for each fault in marshmallow's messages, which webargs has sorted by location."""
    for location, faults in (messages if isinstance(messages, dict) else {"json": messages}).items():
        for path, message in _flatten_messages(faults, ()):
            if location == "json":
                yield {"pointer": json_pointer(path), "message": message}
            else:
                yield {"parameter": ".".join(map(str, path)), "message": message}


def _flatten_messages(faults: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(faults, Mapping):
        for key, inner in faults.items():
            yield from _flatten_messages(inner, path if key == "_schema" else (*path, key))
    elif isinstance(faults, (list, tuple)):
        for fault in faults:
            yield from _flatten_messages(fault, path)
    else:
        yield path, str(faults)
