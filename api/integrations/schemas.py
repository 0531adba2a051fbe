"""The bodies about integrations, as marshmallow schemas: for validation, and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from marshmallow import ValidationError, fields, validate

from api.http.schema_fields import BodySchema
from api.http.strict_json import FAULTS_MAX, json_pointer, to_printable
from shared.domain.access.integration import IntegrationDetails
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.errors import ValidationFailed
from shared.ids import AGENT_NAME_PATTERN, BASKET_NAME_PATTERN, INTEGRATOR_PATTERN
from shared.suggestions import LOOSE_SIMILARITY_MIN, closest_matches

TEXT_MAX: Final = 2_000
COMMENT_MAX: Final = 1_000
VOLUME_BYTES_MAX: Final = 2_000
_NAMES_MAX: Final = 100


def _check_text(text: str) -> None:
    if not text.strip() or len(text) > TEXT_MAX:
        raise ValidationError(f"must be a text of 1 to {TEXT_MAX} characters")


def _check_name(name: str) -> None:
    if not INTEGRATOR_PATTERN.fullmatch(name):
        raise ValidationError("must be 1 to 63 letters, digits or any of _ . -, and begin with a letter or digit")
    if name == PUBLIC_INTEGRATOR:
        raise ValidationError("is reserved for what all integrators share; choose another name")


def _check_volume(volume: Any) -> None:
    is_number = isinstance(volume, (int, float)) and not isinstance(volume, bool) and volume >= 0
    is_text = isinstance(volume, (str, dict)) and bool(volume)
    if not (is_number or is_text) or len(orjson.dumps(volume)) > VOLUME_BYTES_MAX:
        raise ValidationError(
            f"must be runs a day, or a text or an object that says more, of at most {VOLUME_BYTES_MAX} bytes"
        )


def _check_url(text: str) -> None:
    try:
        parts = urlsplit(text)
        is_web_address = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        is_web_address = False
    if not is_web_address or len(text) > TEXT_MAX:
        raise ValidationError("must be a web address such as https://wiki.example.com/mapping, without a password")


def _names(pattern: str, what: str, description: str) -> fields.List[Any]:
    return fields.List(
        fields.Str(validate=validate.Regexp(rf"^(?:{pattern})\Z", error=f"is no name of {what}")),
        load_default=list,
        validate=validate.Length(max=_NAMES_MAX),
        metadata={"description": description},
    )


class NewIntegrationSchema(BodySchema):
    """The body of POST /integrations, and of PUT /integrations/{integration_id}."""

    IS_STRICT = True

    name = fields.Str(
        required=True, validate=_check_name, metadata={"description": "the integrator of its keys; unique"}
    )
    use_case = fields.Str(required=True, validate=_check_text, metadata={"description": "what it is for"})
    data_flow = fields.Str(
        required=True, validate=_check_text, metadata={"description": "what goes into runs, and where results go"}
    )
    agents = _names(AGENT_NAME_PATTERN.pattern, "an agent", "the agents that it runs")
    baskets = _names(
        BASKET_NAME_PATTERN.pattern, "a basket", "the baskets that it runs; if there are any, its key runs only these"
    )
    volume = fields.Raw(required=True, validate=_check_volume)
    contact = fields.Str(
        required=True, validate=_check_text, metadata={"description": "whom to reach about it, also in an incident"}
    )
    mapping_url = fields.Str(
        validate=_check_url,
        metadata={"description": "the address of the document that maps its data to inputs; Bucket never reads it"},
    )


class MoveCommentSchema(BodySchema):
    """The body of a move of an integration; it may be absent."""

    IS_STRICT = True

    comment = fields.Str(validate=validate.Length(min=1, max=COMMENT_MAX))


class ReasonSchema(BodySchema):
    """The body of POST /integrations/{integration_id}/request-changes."""

    IS_STRICT = True

    comment = fields.Str(
        required=True,
        validate=validate.Length(min=1, max=COMMENT_MAX),
        metadata={"description": "what has to change"},
    )


def integration_details(values: Mapping[str, Any]) -> IntegrationDetails:
    """Return what :class:`NewIntegrationSchema` loaded as the details of an integration."""
    return IntegrationDetails(
        name=values["name"],
        use_case=values["use_case"],
        data_flow=values["data_flow"],
        contact=values["contact"],
        volume=orjson.dumps(values["volume"]),
        agents=tuple(dict.fromkeys(values["agents"])),
        baskets=tuple(dict.fromkeys(values["baskets"])),
        mapping_url=values.get("mapping_url"),
    )


def check_ticks(body: Mapping[str, Any]) -> dict[str, bool]:
    """Return ``body`` if it has items of the checklists, each true or false; raises ValidationFailed."""
    found = ((name, fault) for name, done in body.items() if (fault := _fault(name, done)) is not None)
    faults = [
        {"pointer": json_pointer([to_printable(name)]), "message": fault} for name, fault in islice(found, FAULTS_MAX)
    ]
    if not body:
        faults = [{"pointer": "", "message": f"name at least one of {', '.join(CHECKLIST_ITEMS)}"}]
    if faults:
        summary = "; ".join(f"{fault['pointer']}: {fault['message']}" for fault in faults[:3])
        raise ValidationFailed(summary, details=faults)
    return dict(body)


def _fault(name: str, done: Any) -> str | None:
    if name not in CHECKLIST_ITEMS:
        nearest = closest_matches(name[:64], CHECKLIST_ITEMS, similarity_min=LOOSE_SIMILARITY_MIN)
        hint = f"did you mean {nearest[0]}?" if nearest else "GET /integrations/{id}/compliance lists them"
        return f"is no item of a checklist; {hint}"
    return None if isinstance(done, bool) else "must be true or false"
