"""JSON as text: strict in both directions, so NaN and Infinity are refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from bucket_client.connectors.connector_errors import PayloadNotJson


def encode_payload(payload: Any) -> bytes:
    """Return ``payload`` as compact JSON in ASCII, without a line break. Raises PayloadNotJson."""
    try:
        return json.dumps(payload, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadNotJson(f"the payload cannot be written as JSON: {error}") from error


def decode_json(body: bytes) -> Any:
    """Return the parsed ``body``. Raises ValueError if it is not JSON."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
