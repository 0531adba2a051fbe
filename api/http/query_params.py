"""Reads query parameters: each at most once and in its format, otherwise 400 with the name of the parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NoReturn, TypeVar

from flask import request

from api.http.strict_json import FAULTS_MAX, to_printable
from shared.errors import ValidationFailed
from shared.suggestions import closest_matches
from shared.timestamps import parse_rfc3339

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
SEQ_MAX: Final = 2**53

_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {"state": "status", "since": "updated_since", "name": "basket", "label": "tag", "sort": "order", "page": "cursor"}
)

EnumT = TypeVar("EnumT", bound=StrEnum)


def check_known(*names: str) -> None:
    """Raise ValidationFailed if this request has other query parameters than ``names``, with the nearest of each.

    Collections call it: a misspelt filter would return everything. A poll of one run ignores what it does not know.
    """
    if not request.environ.get("QUERY_STRING"):
        return
    unknown = [to_printable(name) for name in request.args if name not in names][:FAULTS_MAX]
    if unknown:
        faults = [{"parameter": name, "message": f"is not known here; {_hint(name, names)}"} for name in unknown]
        summary = "; ".join(f"{fault['parameter']} {fault['message']}" for fault in faults[:3])
        raise ValidationFailed(summary, details=faults)


def _hint(name: str, known: Sequence[str]) -> str:
    alias = _ALIASES.get(name.lower())
    meant = [alias] if alias in known else closest_matches(name.lower(), known)
    if meant:
        return f"did you mean {meant[0]}?"
    return f"there are {', '.join(known)}" if known else "there are no parameters here"


def text(name: str) -> str | None:
    """Return the text of a query parameter, None if it is absent; raises ValidationFailed if it is given twice."""
    values = request.args.getlist(name)
    if len(values) > 1:
        raise_invalid(name, "must be given once")
    return values[0] if values else None


def enum_values(name: str, enum_type: type[EnumT]) -> tuple[EnumT, ...]:
    """Return the members of ``enum_type`` in a comma-separated list, each once and in the order of ``enum_type``."""
    value = text(name)
    if value is None:
        return ()
    chosen = {word.strip() for word in value.split(",")}
    if not chosen <= set(enum_type):
        raise_invalid(name, f"must be one or several of {', '.join(enum_type)}, with commas between")
    return tuple(word for word in enum_type if word in chosen)


def enum_value(name: str, default: EnumT) -> EnumT:
    """Return one member of the enum of ``default``; ``default`` if the parameter is absent."""
    value = text(name)
    enum_type = type(default)
    if value is None:
        return default
    if value not in set(enum_type):
        raise_invalid(name, f"must be one of {', '.join(enum_type)}")
    return enum_type(value)


def timestamp(name: str) -> datetime | None:
    """Return a timestamp in RFC 3339 format, with its offset, or None if the parameter is absent.

    A "+" that was not percent-encoded arrives as a space, and a space can only have been a "+".
    """
    value = text(name)
    if value is None:
        return None
    try:
        return parse_rfc3339(value.replace(" ", "+"))
    except ValueError:
        raise_invalid(name, "must be a moment with its offset, such as 2026-11-21T12:00:00Z")


def integer(name: str, *, minimum: int, maximum: int) -> int | None:
    """Return a query parameter that is an integer in range, None if it is absent; raises ValidationFailed."""
    value = text(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20 and minimum <= int(value) <= maximum):  # noqa: PLR2004
        raise_invalid(name, f"must be a whole number from {minimum} to {maximum}")
    return int(value)


def field_names(known: Sequence[str], whole: str) -> frozenset[str] | None:
    """Return the names in ``fields``, a comma-separated list; None if it is absent.

    Raises ValidationFailed for one that is not ``known``; ``whole`` says in the message what has the fields.
    """
    value = text("fields")
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    unknown = next((name for name in names if name not in known), None)
    if unknown is None:
        return frozenset(names)
    problem = f"{unknown[:64]!r} is no field of {whole}" if unknown else "a name is missing"
    fault = {"parameter": "fields", "message": f"{problem}; name some of {', '.join(known)}, with commas between"}
    raise ValidationFailed(f"fields: {fault['message']}", details=[fault])


def limit() -> int:
    """Return the page size of this request: ``limit``, 1 to 1,000, by default 100."""
    return integer("limit", minimum=1, maximum=LIMIT_MAX) or LIMIT_DEFAULT


def after() -> int | None:
    """Return ``after``: the request wants only log lines with a greater ``seq``; None if it is absent."""
    return integer("after", minimum=0, maximum=SEQ_MAX)


def raise_invalid(name: str, message: str) -> NoReturn:
    """Raise ValidationFailed for the query parameter ``name``."""
    raise ValidationFailed(f"{name} {message}", details=[{"parameter": name, "message": message}])
