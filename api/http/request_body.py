"""Reads the JSON body of a request, strictly, for every route; flask-smorest's parser uses it too.

The stream is read here, up to one byte past the limit: ``MAX_CONTENT_LENGTH`` truncates a chunked body without an
error, and flask-smorest's own parser bypasses ``app.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import flask
import flask_smorest  # type: ignore[import-untyped]
import marshmallow
from flask.globals import request_ctx
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import ClientDisconnected

from api.http.body_key_checks import UnknownKeys, check_policy, find_unknown_keys, with_warnings
from api.http.schema_fields import BodySchema
from api.http.strict_json import json_pointer, parse
from shared.errors import InvalidJson, PayloadTooLarge, UnsupportedMediaType, ValidationFailed

BODY_BYTES_MAX: Final = 1024 * 1024
_DETAILS_MAX: Final = 100
_UTF8: Final = frozenset({"utf-8", "utf8"})
_IDENTITY_ENCODINGS: Final = frozenset({"", "identity"})

BodyPolicy = Callable[[dict[str, Any], bytes], None]


def read_body(request: flask.Request, *, optional: bool = False, policy: BodyPolicy = check_policy) -> dict[str, Any]:
    """Read and return the JSON object in the body of ``request``; ``{}`` if it is ``optional`` and there is no body.

    ``policy`` refuses content that is not allowed. Call it once: the stream can be read only once. Raises
    UnsupportedMediaType, PayloadTooLarge, InvalidJson, ValidationFailed (not an object), CallbacksNotSupported and
    CredentialsNotAccepted.
    """
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise PayloadTooLarge
    if not optional:
        _check_content_type(request)
    raw = _read_stream(request, length)
    if optional and raw:
        _check_content_type(request)
    body = parse(raw) if raw or not optional else {}
    if not isinstance(body, dict):
        raise ValidationFailed("the body must be a JSON object", details=[{"pointer": "", "message": "not an object"}])
    policy(body, raw)
    return body


def _check_content_type(request: flask.Request) -> None:
    if request.environ.get("HTTP_CONTENT_ENCODING", "").lower() not in _IDENTITY_ENCODINGS:
        raise UnsupportedMediaType("the body must not be compressed; send it without Content-Encoding")
    if request.environ.get("CONTENT_TYPE") == "application/json":
        return
    mimetype = request.mimetype
    if mimetype != "application/json" and not (mimetype.startswith("application/") and mimetype.endswith("+json")):
        raise UnsupportedMediaType
    if request.mimetype_params.get("charset", "utf-8").lower() not in _UTF8:
        raise UnsupportedMediaType("the body must be JSON in UTF-8; leave the charset out or send charset=utf-8")


def _read_stream(request: flask.Request, length: int | None) -> bytes:
    """Return the whole body; a server may deliver it in pieces, and a client may disconnect halfway."""
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


class LoadedBody(dict[str, Any]):
    """The values that a schema loaded, the JSON object ``raw`` that they are from, and ``warnings`` of unknown keys."""

    def __init__(self, values: Mapping[str, Any], raw: Mapping[str, Any], warnings: Sequence[str]) -> None:
        super().__init__(values)
        self.raw = raw
        self.warnings = warnings


class StrictParser(FlaskParser):
    """The webargs parser of flask-smorest with our strict body; errors are 400, never 422."""

    POLICY: BodyPolicy = staticmethod(check_policy)

    def parse(self, argmap: Any, *_: Any, **__: Any) -> LoadedBody:
        """Return what ``argmap`` loads of the body; without webargs' generic code, which looks up a location first."""
        return load_body(argmap, read_body(request_ctx.request, policy=self.POLICY))


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """A flask-smorest blueprint whose arguments are read by the strict parser."""

    ARGUMENTS_PARSER = StrictParser()


def load_body(schema: BodySchema, raw: Mapping[str, Any]) -> LoadedBody:
    """Return ``raw`` as ``schema`` loads it; raises ValidationFailed with all faults, misspelt keys among them."""
    known_keys: Collection[str] = raw if schema.IS_STRICT else schema.fields  # a strict one refuses unknown keys itself
    unknown = find_unknown_keys(raw, known_keys, key_hints=schema.KEY_HINTS)
    refusal: ValidationFailed | None = None
    values: Mapping[str, Any] = {}
    try:
        values = schema.load(raw)
    except marshmallow.ValidationError as error:
        refusal = validation_error(error.messages)
    except ValidationFailed as error:
        refusal = error
    _check_near_misses(unknown, refusal)
    if refusal is not None:
        raise with_warnings(refusal, unknown.warnings) from None
    return LoadedBody(values, raw, unknown.warnings)


def load_optional_body(request: flask.Request, known_keys: Collection[str]) -> LoadedBody:
    """Return the body of ``request``, which may be absent, with its known keys that are not null.

    Raises ValidationFailed for misspelt keys, and what :func:`read_body` raises.
    """
    raw = read_body(request, optional=True)
    unknown = find_unknown_keys(raw, known_keys)
    _check_near_misses(unknown, None)
    return LoadedBody({key: raw[key] for key in known_keys if raw.get(key) is not None}, raw, unknown.warnings)


def validation_error(messages: Any) -> ValidationFailed:
    """Return the ValidationFailed for marshmallow's messages: with the JSON pointer of each fault, at most 100."""
    return _refusal([{"pointer": json_pointer(path), "message": text} for path, text in _flatten_messages(messages)])


def _check_near_misses(unknown: UnknownKeys, refusal: ValidationFailed | None) -> None:
    """Raise ValidationFailed for misspelt keys, and for the faults of ``refusal`` that they do not explain."""
    if not unknown.near_misses:
        return
    explained = {json_pointer([key]) for key in unknown.near_misses.values()}
    misspelt = list(validation_error(unknown.faults).details)
    others = [] if refusal is None else [fault for fault in refusal.details if fault["pointer"] not in explained]
    raise with_warnings(_refusal([*misspelt, *others]), unknown.warnings)


def _refusal(details: Sequence[Mapping[str, Any]]) -> ValidationFailed:
    summary = "; ".join(f"{detail['pointer']}: {detail['message']}" for detail in details[:3])
    more = f"; and {len(details) - 3} more" if len(details) > 3 else ""  # noqa: PLR2004  as many as the summary has
    return ValidationFailed(summary + more, details=details[:_DETAILS_MAX])


def _flatten_messages(faults: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(faults, Mapping):
        for key, inner in faults.items():
            yield from _flatten_messages(inner, path if key == "_schema" else (*path, key))
    elif isinstance(faults, (list, tuple)):
        for fault in faults:
            yield from _flatten_messages(fault, path)
    else:
        yield path, str(faults)
