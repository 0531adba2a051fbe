"""Schema of a poll of many: hundreds of small items are checked by one plain loop, not by a schema each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validate

from api.http.body_key_checks import find_unknown_keys
from api.http.schema_fields import BodySchema, ItemsField
from api.http.strict_json import FAULTS_MAX
from shared.ids import EXECUTION_ID_PATTERN

_REV_MAX: Final = 2**63
_ITEM_KEYS: Final = dict.fromkeys(("execution_id", "rev"))
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
        execution_id: Any = item.get("execution_id")
        rev: Any = item.get("rev")
        if type(rev) is float and rev.is_integer() and rev < _REV_MAX:
            rev = int(rev)  # in JSON 7.0 is the same number as 7
        fault = _find_value_faults(execution_id, rev)
        if not item.keys() <= _ITEM_KEYS.keys():
            fault = _check_unknown_keys(poll_request, item, fault)
        if fault:
            faults[index] = fault
        elif not EXECUTION_ID_PATTERN.fullmatch(execution_id):
            poll_request.malformed_ids[execution_id] = None
        elif revs.setdefault(execution_id, rev) != rev:
            revs[execution_id] = None  # two revisions of one run: return its view in any case
    if faults:
        raise ValidationError(faults)
    return poll_request


def _find_value_faults(execution_id: Any, rev: Any) -> Mapping[str, Any]:
    if type(execution_id) is not str:
        return {"execution_id": [_INVALID_ID]}
    if rev is not None and (type(rev) is not int or rev < 0):
        return {"rev": [_INVALID_REV]}
    return {}


def _check_unknown_keys(
    poll_request: PollManyRequest, item: Mapping[str, Any], faults: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the faults of an item's misspelt keys, and those ``faults`` that they do not explain.

    Other unknown keys are warned of, each once: with "revision" in place of "rev" every run would be returned each
    time.
    """
    unknown = find_unknown_keys(item, _ITEM_KEYS, within="items")
    new_warnings = [warning for warning in unknown.warnings if warning not in poll_request.warnings]
    poll_request.warnings = [*poll_request.warnings, *new_warnings][:FAULTS_MAX]
    explained = set(unknown.near_misses.values())
    return unknown.faults | {key: fault for key, fault in faults.items() if key not in explained}
