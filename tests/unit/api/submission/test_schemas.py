"""Fast path of the submit schemas: a usual body is not loaded field by field, with the same result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import marshmallow
import pytest

from api.submission.schemas import RunAgentSchema, RunBasketSchema

USUAL: list[tuple[marshmallow.Schema, dict[str, Any]]] = [
    (RunBasketSchema(), {"basket_name": "chained_test", "input_data": {"transactions": [1]}}),
    (RunBasketSchema(), {"input_data": {}, "basket_name": ""}),
    (RunAgentSchema(), {"agent_name": "echo", "input_data": {"a": {"b": None}}}),
]
WRONG: list[tuple[marshmallow.Schema, dict[str, Any]]] = [
    (RunBasketSchema(), {"basket_name": 1, "input_data": {}}),
    (RunBasketSchema(), {"basket_name": "b", "input_data": []}),
    (RunAgentSchema(), {"agent_name": None, "input_data": {}}),
    (RunAgentSchema(), {"agent_name": "echo", "input_data": None}),
]


def _field_by_field(schema: marshmallow.Schema, body: dict[str, Any]) -> Any:
    """Load a body as marshmallow does, without the fast path."""
    return marshmallow.Schema.load(schema, body, unknown=marshmallow.EXCLUDE)


@pytest.mark.parametrize(("schema", "body"), USUAL)
def test_a_usual_body_is_loaded_as_marshmallow_loads_it(schema: marshmallow.Schema, body: dict[str, Any]) -> None:
    """The result has every default, and marshmallow's own loading had no part in it."""
    expected = _field_by_field(schema, body)
    with patch.object(marshmallow.Schema, "load", side_effect=AssertionError("loaded field by field")):
        assert schema.load(body, unknown=marshmallow.EXCLUDE) == expected


def test_no_two_bodies_share_a_default() -> None:
    """A tag that is added to one body must not appear in the next."""
    schema, body = USUAL[0]
    assert schema.load(body)["tags"] is not schema.load(body)["tags"]


@pytest.mark.parametrize(("schema", "body"), WRONG)
def test_a_usual_body_of_wrong_types_is_refused_in_the_same_words(
    schema: marshmallow.Schema, body: dict[str, Any]
) -> None:
    """The fast path is only for valid bodies."""
    with pytest.raises(marshmallow.ValidationError) as long:
        _field_by_field(schema, body)
    with pytest.raises(marshmallow.ValidationError) as short:
        schema.load(body)
    assert short.value.messages == long.value.messages


@pytest.mark.parametrize("run_after", ["1970-01-01T00:00:00Z", "2010-01-01T00:00:00.1234567+02:00"])
def test_a_start_may_lie_any_time_in_the_past(run_after: str) -> None:
    assert RunBasketSchema().load({"basket_name": "b", "run_after": run_after})["run_after"] < datetime.now(UTC)


@pytest.mark.parametrize("run_after", ["2999-01-01T00:00:00Z", "2026-11-21", 5, ""])
def test_a_start_is_a_moment_of_these_ten_years(run_after: object) -> None:
    with pytest.raises(marshmallow.ValidationError, match="at most ten years ahead"):
        RunBasketSchema().load({"basket_name": "b", "run_after": run_after})


@pytest.mark.parametrize("value", [1, 1.0, 0, "true", "on", []])
def test_only_true_and_false_are_booleans(value: Any) -> None:
    body = {"agent_name": "echo", "input_data": {}}
    assert RunAgentSchema().load(body | {"stateful": True})["stateful"] is True
    assert RunAgentSchema().load(body | {"stateful": None})["stateful"] is False
    with pytest.raises(marshmallow.ValidationError) as caught:
        RunAgentSchema().load(body | {"stateful": value})
    assert caught.value.messages == {"stateful": ["Not a valid boolean."]}
