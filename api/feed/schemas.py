"""Marshmallow schemas of the bodies of the feed's requests."""

from __future__ import annotations

from marshmallow import fields

from api.http.schema_fields import BodySchema


class AckSchema(BodySchema):
    """The body of POST /consumers/{name}/ack."""

    cursor = fields.Str(required=True, error_messages={"required": "is required: the next_since of a page"})
