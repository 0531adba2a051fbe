"""Run builder: a submit becomes a run, or is refused with the place of each fault."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from api.catalogue.basket_definition import parse_basket, validate_definition
from api.http.wait_preference import NO_WAIT
from api.submission.run_builder import _check_input, build_execution
from api.submission.submission import Submission, parse_idempotency_key, parse_traceparent
from shared.catalogue.agent_catalogue import AgentCatalogue, load_catalogue
from shared.catalogue.schema_validator import SchemaFault
from shared.domain.access.caller import LOCAL_CALLER
from shared.errors import AgentNotFound, UnknownAgent, ValidationFailed
from tests.builders import NOON


@pytest.fixture(scope="module")
def catalogue() -> AgentCatalogue:
    return load_catalogue()


def run(catalogue: AgentCatalogue, **overrides: Any) -> Any:
    basket = parse_basket(validate_definition({"name": "b", "agents": ["cashflow_analyzer"]}), catalogue)
    body = {"tags": [], "metadata": {}} | overrides
    submission = Submission(
        caller=LOCAL_CALLER, integrator="acme", body=body, received_at=NOON, request_id="req-1", traceparent=None,
        idempotency=None, prefix="", warnings=(), wait=NO_WAIT,
    )  # fmt: skip
    return build_execution(basket, submission, catalogue, kind="basket")


def test_a_basket_is_a_chain_in_the_order_of_its_agents(catalogue: AgentCatalogue) -> None:
    agents = ["cashflow_analyzer", "goal_recommender", "cashflow_analyzer"]
    basket = parse_basket(validate_definition({"name": "b", "agents": agents}), catalogue)
    assert [step.id for step in basket.steps] == ["cashflow_analyzer", "goal_recommender", "cashflow_analyzer-2"]
    assert [step.needs for step in basket.steps] == [(), ("cashflow_analyzer",), ("goal_recommender",)]
    assert {step.timeout_s for step in basket.steps} == {catalogue.agent("cashflow_analyzer").timeout_s}


def test_an_unknown_agent_is_refused_when_a_basket_is_run_and_when_it_is_created(catalogue: AgentCatalogue) -> None:
    wrong = validate_definition({"name": "b", "agents": ["nobody", "cashflow_analyzer", "neither"]})
    with pytest.raises(AgentNotFound, match="'nobody' was not found"):
        parse_basket(wrong, catalogue)
    with pytest.raises(UnknownAgent) as refused:
        parse_basket(wrong, catalogue, missing_agent=UnknownAgent)
    assert [detail["pointer"] for detail in refused.value.details] == ["/agents/0", "/agents/2"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "mine"},
        {"agents": ["a"], "steps": [{"agent": "a"}]},
        {"agents": ["a"], "execution_strategy": "graph"},
        {"steps": [{"agent": "a"}], "execution_strategy": "parallel"},
    ],
    ids=str,
)
def test_a_basket_is_a_list_of_agents_or_a_graph_of_steps(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed) as refused:
        validate_definition(wrong, "/config")
    assert refused.value.details[0]["pointer"].startswith("/config/")


def test_no_input_is_the_sample_and_given_input_is_kept(catalogue: AgentCatalogue) -> None:
    sample = run(catalogue)
    assert sample.input_source == "sample"
    assert orjson.loads(sample.input) == catalogue.agent("cashflow_analyzer").sample_input
    with_input = run(catalogue, input_data={"transactions": []})
    assert (with_input.input_source, with_input.input) == ("request", b'{"transactions":[]}')


def test_input_that_breaks_the_schema_is_refused_by_pointer(catalogue: AgentCatalogue) -> None:
    with pytest.raises(ValidationFailed) as refused:
        run(catalogue, input_data={"transactions": [{"id": 1}, 7]})
    assert {detail["pointer"] for detail in refused.value.details} == {
        "/input_data/transactions/0", "/input_data/transactions/1",
    }  # fmt: skip
    assert "cashflow_analyzer" in refused.value.message


def test_metadata_is_measured_as_it_is_stored(catalogue: AgentCatalogue) -> None:
    assert run(catalogue, metadata={"a": "ü" * 8_188}).metadata.startswith(b'{"a":"')
    with pytest.raises(ValidationFailed, match="16386 bytes"):
        run(catalogue, metadata={"a": "ü" * 8_189})


@pytest.mark.parametrize("key", [" ", "~", "x" * 255])
def test_a_key_is_taken_as_it_is(key: str) -> None:
    assert parse_idempotency_key(key, "header", "Idempotency-Key") == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a\n", "a\t", "ü", "\x7f", "a,b", ","])
def test_a_key_of_another_form_is_refused(key: str) -> None:
    with pytest.raises(ValidationFailed, match="1 to 255 printable"):
        parse_idempotency_key(key, "header", "Idempotency-Key")


def test_a_traceparent_is_kept_only_if_it_is_valid() -> None:
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    assert parse_idempotency_key(None, "header", "Idempotency-Key") is None
    for valid in (good, good + "-more"):
        assert parse_traceparent(valid) == valid
    for malformed in (None, "", good[1:], good + "\n", good.upper()):
        assert parse_traceparent(malformed) is None


class Counting(AgentCatalogue):
    """A catalogue that records for which agents it checked an input."""

    def __init__(self, catalogue: AgentCatalogue) -> None:
        self.__dict__.update(catalogue.__dict__)
        self.checked: list[str] = []

    def find_input_faults(self, name: str, value: Any) -> list[SchemaFault]:
        self.checked.append(name)
        return super().find_input_faults(name, value)


POINTING: dict[str, Any] = {
    "agent": "cashflow_analyzer",
    "input": {"transactions": {"from": "input", "pointer": "/transactions"}},
}


@pytest.mark.parametrize(
    "definition",
    [
        {"name": "b", "agents": ["cashflow_analyzer"] * 200, "execution_strategy": "parallel"},
        {"name": "b", "steps": [POINTING] * 200},
    ],
)
def test_two_hundred_steps_of_one_agent_do_not_check_a_large_input_two_hundred_times(
    catalogue: AgentCatalogue, definition: dict[str, Any]
) -> None:
    basket = parse_basket(validate_definition(definition), catalogue)
    counting = Counting(catalogue)
    with pytest.raises(ValidationFailed):
        _check_input(basket, {"transactions": [{}]}, counting)
    assert counting.checked == ["cashflow_analyzer"]


def test_the_inputs_that_many_steps_take_from_one_large_input_are_checked_up_to_a_limit(
    catalogue: AgentCatalogue,
) -> None:
    steps = [POINTING | {"input": POINTING["input"] | {"apart": number}} for number in range(200)]
    basket = parse_basket(validate_definition({"name": "b", "steps": steps}), catalogue)
    counting = Counting(catalogue)
    _check_input(basket, {"transactions": [{"id": 1, "amount": 1, "description": "x" * 1_000_000}]}, counting)
    assert len(counting.checked) == 9
