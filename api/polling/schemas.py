"""Schema of a poll of many: hundreds of small items are checked by one plain loop, not by a schema each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validate

from api.http.body_key_checks import unknown_key_warnings
from api.http.schema_fields import BodySchema, ItemsField
from api.http.strict_json import FAULTS_MAX
from shared.ids import EXECUTION_ID_PATTERN

_REV_MAX: Final = 2**63
_ITEM_KEYS: Final = ("execution_id", "rev")
_INVALID_ID: Final = "must be a string: the execution_id that the submit was answered"
_INVALID_REV: Final = "must be the rev of the last poll, or null where there was none"


@dataclass(slots=True)
class PollManyRequest:
    """A parsed poll of many: by execution id the revision that the caller has, None if it has none.

    ``malformed_ids`` are texts that cannot be an id; ``warnings`` name unknown keys.
    """

    revs: dict[str, int | None] = field(default_factory=dict)
    malformed_ids: dict[str, None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class PolledItemSchema(Schema):
    """One item: an execution to poll."""

    execution_id = fields.Str(required=True)
    rev = fields.Int(
        allow_none=True,
        metadata={"description": "of the last poll; if null or absent, the execution is always returned"},
    )


class _PollItemsField(ItemsField):
    """A list of items, parsed to a :class:`PollManyRequest`; an id may occur twice."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return _parse_items(super()._deserialize(value, *args, **kwargs))


class PollManySchema(BodySchema):
    """The body of POST /executions/poll."""

    items = _PollItemsField(PolledItemSchema, description="{execution_id, rev}")
    view = fields.Str(load_default="status", validate=validate.OneOf(["status", "full"]))


def _parse_items(items: Sequence[Any]) -> PollManyRequest:
    poll_request = PollManyRequest()
    revs = poll_request.revs
    faults: dict[int, Any] = {}
    for index, item in enumerate(items):
        if type(item) is not dict:
            faults[index] = ["must be an object such as {execution_id, rev}"]
            continue
        execution_id, rev = item.get("execution_id"), item.get("rev")
        if type(rev) is float and rev.is_integer() and rev < _REV_MAX:
            rev = int(rev)  # in JSON 7.0 is the same number as 7
        if type(execution_id) is not str:
            faults[index] = {"execution_id": [_INVALID_ID]}
        elif rev is not None and (type(rev) is not int or rev < 0):
            faults[index] = {"rev": [_INVALID_REV]}
        elif not EXECUTION_ID_PATTERN.fullmatch(execution_id):
            poll_request.malformed_ids[execution_id] = None
        elif revs.setdefault(execution_id, rev) != rev:
            revs[execution_id] = None  # two revisions of one run: return its view in any case
        if len(item) > (1 if rev is None else 2):
            _warn_of_unknown_keys(poll_request, item)
    if faults:
        raise ValidationError(faults)
    return poll_request


def _warn_of_unknown_keys(poll_request: PollManyRequest, item: Mapping[str, Any]) -> None:
    """Warn once of each unknown key: with "revision" in place of "rev" every run would be returned each time."""
    if len(poll_request.warnings) < FAULTS_MAX:
        item_warnings = unknown_key_warnings(item, _ITEM_KEYS, within="items")
        poll_request.warnings += [warning for warning in item_warnings if warning not in poll_request.warnings]
