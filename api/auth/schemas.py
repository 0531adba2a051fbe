"""The bodies that make and rotate keys, as marshmallow schemas: for validation, and for the OpenAPI document."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from marshmallow import ValidationError, fields, validate, validates_schema

from api.http.schema_fields import BodySchema, StrictBooleanField, StrictNumberField
from shared.domain.access.api_key import DEFAULT_LIFE, KeyRequest
from shared.domain.access.caller import Role
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.ids import BASKET_NAME_PATTERN, INTEGRATOR_PATTERN
from shared.networks import parse_network

_LIFE_MAX: Final = timedelta(days=3_650)
GRACE_MAX: Final = timedelta(days=90)
LIST_MAX: Final = 100


def _check_network(text: str) -> None:
    try:
        parse_network(text)
    except ValueError as error:
        raise ValidationError(f"must be an address or a network, such as 10.1.0.0/16: {error}") from error


class NewKeySchema(BodySchema):
    """The body of POST /keys."""

    IS_STRICT = True

    name = fields.Str(load_default="", validate=validate.Length(max=100))
    owner = fields.Str(
        load_default="",
        validate=validate.Length(max=100),
        metadata={"description": "who answers for the key: a person or a team"},
    )
    role = fields.Str(required=True, validate=validate.OneOf([str(role) for role in Role]))
    integrator = fields.Str(
        validate=validate.Regexp(
            rf"^(?:{INTEGRATOR_PATTERN.pattern})\Z",
            error="must be 1 to 63 letters, digits or any of _ . -, and begin with a letter or digit",
        ),
        metadata={"description": "the system whose runs the key may see; only an admin's key may leave it out"},
    )
    expires_in_days = StrictNumberField(
        validate=validate.Range(min=0, min_inclusive=False, max=_LIFE_MAX.days),
        metadata={"description": f"{DEFAULT_LIFE.days} by default"},
    )
    expires_in_s = StrictNumberField(
        validate=validate.Range(min=0, min_inclusive=False, max=_LIFE_MAX.total_seconds()),
        metadata={"description": "the same in seconds"},
    )
    baskets = fields.List(
        fields.Str(validate=validate.Regexp(rf"^(?:{BASKET_NAME_PATTERN.pattern})\Z", error="is no name of a basket")),
        validate=validate.Length(min=1, max=LIST_MAX),
        metadata={"description": "the only baskets that the key may run"},
    )
    networks = fields.List(
        fields.Str(validate=_check_network),
        validate=validate.Length(min=1, max=LIST_MAX),
        metadata={"description": "the only addresses that the key is valid from"},
    )
    payloads = StrictBooleanField(
        load_default=False,
        metadata={"description": "a reader's key: whether it sees inputs, outputs and logs"},
    )
    integration = fields.Str(
        validate=validate.Length(max=100), metadata={"description": "the registered integration that it belongs to"}
    )

    @validates_schema
    def _check_together(self, values: Any, **_: Any) -> None:
        if "integrator" not in values and values["role"] != Role.ADMIN:
            raise ValidationError("is required for this role", "integrator")
        if "expires_in_days" in values and "expires_in_s" in values:
            raise ValidationError("give expires_in_days or expires_in_s, not both", "expires_in_s")


class RotationSchema(BodySchema):
    """The body of POST /keys/{key_id}/rotate."""

    IS_STRICT = True

    grace_s = StrictNumberField(
        load_default=0.0,
        validate=validate.Range(min=0, max=GRACE_MAX.total_seconds()),
        metadata={"description": "how long the old key stays valid, in seconds"},
    )


def key_request(values: Any) -> KeyRequest:
    """Return what :class:`NewKeySchema` loaded as the request for a key."""
    life = DEFAULT_LIFE
    if "expires_in_days" in values:
        life = timedelta(days=values["expires_in_days"])
    elif "expires_in_s" in values:
        life = timedelta(seconds=values["expires_in_s"])
    networks = values.get("networks")
    return KeyRequest(
        role=Role(values["role"]),
        integrator=values.get("integrator", PUBLIC_INTEGRATOR),
        name=values["name"],
        owner=values["owner"],
        expires_in=life,
        baskets=None if values.get("baskets") is None else tuple(values["baskets"]),
        networks=None if networks is None else tuple(map(parse_network, networks)),
        payloads=values["payloads"],
        integration=values.get("integration"),
    )
