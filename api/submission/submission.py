"""The parsed request of a submit, retry or requeue: read once by the route, passed on as a frozen value."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import flask

from api.auth.audit_note import AuditNote
from api.http import version_prefix
from api.http.request_body import LoadedBody
from api.http.strict_json import NAME_MAX_CHARS, canonical_json
from api.http.wait_preference import NO_WAIT, WaitPreference, parse_prefer_header
from shared.domain.access.caller import Caller
from shared.domain.execution import Idempotency
from shared.errors import ValidationFailed
from shared.ids import TRACEPARENT_PATTERN

_KEY: Final = re.compile(r"[\x20-\x2b\x2d-\x7e]{1,255}")
_KEY_HEADER: Final = "HTTP_IDEMPOTENCY_KEY"
_KEY_HEADER_WORD: Final = "IDEMPOTEN"


@dataclass(frozen=True, slots=True)
class Submission:
    """One request of ``caller`` that creates an execution, which belongs to ``integrator``.

    ``body`` has the values that its schema loaded. ``received_at`` is the store's time. ``prefix`` is the path prefix
    (API version) of the addresses in the reply. ``warnings`` name unknown keys. ``wait`` is how long the caller prefers
    to wait for the end of the run. ``audit`` is what the audit log will say of the run.
    """

    caller: Caller
    integrator: str
    body: Mapping[str, Any]
    received_at: datetime
    request_id: str
    traceparent: str | None
    idempotency: Idempotency | None
    prefix: str
    warnings: Sequence[str]
    wait: WaitPreference
    audit: Mapping[str, str] | None = None


def read_submission(caller: Caller, request: flask.Request, received_at: datetime, body: LoadedBody) -> Submission:
    """Return ``request`` as a submission; raises ValidationFailed for a malformed Idempotency-Key."""
    environ = request.environ
    _check_key_header_names(environ)
    key = parse_idempotency_key(environ.get(_KEY_HEADER), "header", "Idempotency-Key")
    note: AuditNote | None = flask.g.get("audit_note")
    route = request.path.removeprefix(version_prefix.VERSION_PREFIX)
    return Submission(
        caller=caller,
        integrator=caller.integrator,
        body=body,
        received_at=received_at,
        request_id=flask.g.request_id,
        traceparent=parse_traceparent(environ.get("HTTP_TRACEPARENT")),
        idempotency=None if key is None else Idempotency(key, fingerprint(route, body.raw)),
        prefix=version_prefix.request_prefix(),
        warnings=body.warnings,
        wait=parse_prefer_header() if "HTTP_PREFER" in environ else NO_WAIT,
        audit=None if note is None else note.run_event(),
    )


def ignored_and_default_warnings(body: Mapping[str, Any]) -> list[str]:
    """Return the warnings of a basket's submit, as it was sent: of a config that is not used, and of sample input."""
    warnings = []
    if body.get("basket_name") is not None and body.get("config") is not None:
        warnings.append("config was ignored, because basket_name is given; send only one of them")
    if body.get("input_data") is None:
        warnings.append("no input_data was sent: the run uses the sample_input of its first agent")
    return warnings


def fingerprint(route: str, body: Any) -> str:
    """Return the fingerprint of a request: SHA-256, in hex, of ``route`` (without prefix) and the canonical body."""
    return hashlib.sha256(route.encode() + b"\0" + canonical_json(body)).hexdigest()


def parse_idempotency_key(key: Any, place: str, name: str) -> str | None:
    """Return an idempotency key, None if there is none.

    Raises ValidationFailed if it is malformed; ``place`` and ``name`` say in its detail where the key came from.
    """
    if key is None or (isinstance(key, str) and _KEY.fullmatch(key)):
        return key
    fault = {
        place: name,
        "message": "must be 1 to 255 printable ASCII characters, without a comma (it joins two)",
    }
    raise ValidationFailed(f"{name.removeprefix('/')} {fault['message']}", details=[fault])


def _check_key_header_names(environ: Mapping[str, Any]) -> None:
    """Raise ValidationFailed for a header that was meant as Idempotency-Key: ignoring it would mean two runs."""
    for name in environ:
        if _KEY_HEADER_WORD in name and name != _KEY_HEADER:
            # The worker of gunicorn doubles an underscore.
            header = "_".join(part.replace("_", "-") for part in name.removeprefix("HTTP_").split("__")).title()
            fault = {"header": header[:NAME_MAX_CHARS], "message": "is not known; write Idempotency-Key"}
            raise ValidationFailed(f"the header {fault['header']} {fault['message']}", details=[fault])


def parse_traceparent(header: str | None) -> str | None:
    """Return a W3C traceparent if the header is one; a malformed one is ignored, as the standard says."""
    return header if header is not None and TRACEPARENT_PATTERN.fullmatch(header) else None
