"""Money is added exactly and rounded once, half to even; the ledger stores each transaction once."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import orjson
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from shared.catalogue.agent_catalogue import AgentCatalogue
from worker.agent_errors import InvalidInputError
from worker.agent_loader import Agent
from worker.context import AgentContext
from worker.money import flow_of
from worker.testing import InMemoryLedger, RecordingReporter

Contexts = Callable[..., AgentContext]
Run = Callable[..., dict[str, Any]]
LIMIT = 999_999_999_999.99


@pytest.fixture
def analysis(agents: Mapping[str, Agent], new_context: Contexts) -> Run:
    def analyse(*amounts: Any, **more: Any) -> dict[str, Any]:
        transactions = [{"id": number, "amount": amount, **more} for number, amount in enumerate(amounts)]
        output: dict[str, Any] = agents["cashflow_analyzer"].run({"transactions": transactions}, new_context())
        return dict(output["analysis"])

    return analyse


@pytest.fixture
def coordinate(agents: Mapping[str, Agent], new_context: Contexts) -> Run:
    def act(action: str, key: str = "run:step", **more: Any) -> dict[str, Any]:
        ctx = new_context(idempotency_key=key)
        output: dict[str, Any] = agents["financial_coordinator"].run({"action": action, **more}, ctx)
        return output

    return act


def test_one_income_is_the_total(analysis: Run) -> None:
    assert orjson.dumps(analysis(1000)) == b'{"total":1000,"positive":1000,"negative":0}'


def test_tenths_add_up_to_what_people_expect(analysis: Run) -> None:
    assert analysis(0.1, 0.2) == {"total": 0.3, "positive": 0.3, "negative": 0}


def test_no_transactions_give_zeros(analysis: Run) -> None:
    assert orjson.dumps(analysis()) == b'{"total":0,"positive":0,"negative":0}'


def test_negative_keeps_its_sign(analysis: Run) -> None:
    assert analysis(100, -30.5) == {"total": 69.5, "positive": 100, "negative": -30.5}


def test_a_positive_expense_counts_as_negative(analysis: Run) -> None:
    assert analysis(20, type="expense") == {"total": -20, "positive": 0, "negative": -20}


def test_a_negative_expense_stays_as_it_is(analysis: Run) -> None:
    assert analysis(-20, type="expense")["total"] == -20


def test_sums_are_rounded_once_and_not_each_amount(analysis: Run) -> None:
    assert analysis(*[0.004] * 10)["total"] == 0.04


@pytest.mark.parametrize(("amount", "total"), [(0.125, 0.12), (0.135, 0.14), (2.675, 2.68), (0.005, 0), (0.015, 0.02)])
def test_halves_go_to_the_even_cent_of_what_was_written(analysis: Run, amount: float, total: float) -> None:
    assert analysis(amount)["total"] == total


@pytest.mark.parametrize("amounts", [(-0.001,), (-0.0,), (0.1, -0.1), (-0.004, 0.0)])
def test_nothing_is_never_a_negative_zero(analysis: Run, amounts: tuple[float, ...]) -> None:
    assert all(str(figure) == "0" for name, figure in analysis(*amounts).items() if figure == 0)
    assert b"-0" not in orjson.dumps({"total": analysis(*amounts)["total"]})


def test_a_fraction_far_below_a_cent_still_decides_a_half(analysis: Run) -> None:
    assert analysis(0.005, 1e-300)["total"] == 0.01


def test_a_large_sum_loses_no_cent_of_a_small_amount(analysis: Run) -> None:
    assert analysis(LIMIT, 5e-324, -LIMIT, 0.01)["total"] == 0.01


@pytest.mark.parametrize(
    "amount", [1e12, -1e12, 10**12, 10**400, math.nan, math.inf, -math.inf, True, None, "7", [], {}]
)
def test_an_amount_that_is_not_money_is_refused(analysis: Run, catalogue: AgentCatalogue, amount: Any) -> None:
    with pytest.raises(ValueError, match="an amount must"):
        analysis(amount)
    assert catalogue.find_input_faults("cashflow_analyzer", {"transactions": [{"id": 1, "amount": amount}]}) != []


@pytest.mark.parametrize("amount", [LIMIT, -LIMIT])
def test_an_amount_at_the_limit_is_accepted(analysis: Run, catalogue: AgentCatalogue, amount: float) -> None:
    assert analysis(amount)["total"] == amount
    assert catalogue.find_input_faults("cashflow_analyzer", {"transactions": [{"id": "a", "amount": amount}]}) == []


def test_further_fields_of_a_transaction_are_allowed(catalogue: AgentCatalogue) -> None:
    transaction = {"id": "t-1", "amount": 1, "currency": "EUR"}
    assert catalogue.find_input_faults("cashflow_analyzer", {"transactions": [transaction]}) == []


@drawn(st.lists(st.floats(-LIMIT, LIMIT) | st.integers(-(10**11), 10**11), max_size=30))
def test_the_total_is_the_exact_sum_to_half_a_cent(amounts: list[float | int]) -> None:
    exact = sum((Fraction(repr(amount)) for amount in amounts), Fraction(0))
    total = flow_of({"amount": amount} for amount in amounts).total
    assert abs(Fraction(repr(total)) - exact) <= Fraction(1, 200)


@pytest.mark.parametrize("count", [71, 99, 9_001])
def test_a_sum_that_a_json_number_cannot_tell_to_the_cent_is_refused(analysis: Run, count: int) -> None:
    with pytest.raises(InvalidInputError, match="too large for a JSON number"):
        analysis(*[LIMIT] * count)


def test_the_largest_sums_that_can_be_told_are_told(analysis: Run) -> None:
    assert analysis(*[LIMIT] * 70)["total"] == 69_999_999_999_999.3
    whole = [999_999_999_999] * 10_000  # even, and beyond 2**53: a double still tells it
    assert analysis(*whole)["total"] == 9_999_999_999_990_000
    with pytest.raises(InvalidInputError):
        analysis(*whole, 1)


@pytest.mark.parametrize("kind", ["debit", "withdrawal", "DBIT", "outflow", " Expense ", "charge"])
def test_the_words_of_banks_for_money_out_are_known(analysis: Run, kind: str) -> None:
    assert analysis(20, type=kind) == {"total": -20, "positive": 0, "negative": -20}


@pytest.mark.parametrize("kind", ["credit", "CRDT", "deposit", "inflow", "income", None])
def test_the_words_for_money_in_change_nothing(analysis: Run, kind: str | None) -> None:
    assert analysis(20, type=kind)["total"] == 20


def test_types_that_are_not_known_are_counted_in_the_log(agents: Mapping[str, Agent], new_context: Contexts) -> None:
    reporter = RecordingReporter()
    kinds = ["mystery"] * 3 + ["income", "other"]
    transactions = [{"id": number, "amount": 1, "type": kind} for number, kind in enumerate(kinds)]
    agents["cashflow_analyzer"].run({"transactions": transactions}, new_context(reporter=reporter))
    (warning,) = [line for line in reporter.lines if line[0] == "warning"]
    assert "4 transactions have a type that is not known" in warning[1]
    assert "'mystery' (3), 'other' (1)" in warning[1]


def test_sums_do_not_depend_on_the_decimal_context_of_the_thread(analysis: Run) -> None:
    with decimal.localcontext() as context:
        context.prec = 6
        assert analysis(123456.78, type="expense")["total"] == -123456.78


def test_no_description_and_no_type_may_be_null(catalogue: AgentCatalogue, coordinate: Run) -> None:
    transaction = {"id": 1, "amount": 1, "description": None, "type": None}
    assert catalogue.find_input_faults("cashflow_analyzer", {"transactions": [transaction]}) == []
    given = {"action": "add_transaction", "transaction": {"amount": 5, "description": None, "type": None}}
    assert catalogue.find_input_faults("financial_coordinator", given) == []
    added = coordinate("add_transaction", transaction=given["transaction"])["transaction"]
    assert (added["description"], added["type"]) == ("", "income")


def test_a_report_sums_all_transactions_and_not_only_those_listed(coordinate: Run, ledger: InMemoryLedger) -> None:
    for number in range(1_050):
        ledger.add(str(number), {"id": str(number), "amount": 1.01, "description": "", "type": "income"})
    output = coordinate("get_report")
    assert len(output["transactions"]) == 1_000
    assert output["report"] == {"total": 1060.5, "positive": 1060.5, "negative": 0, "count": 1_050}


@pytest.mark.parametrize(
    ("total", "recommendation"),
    [(0.01, "Increase savings"), (0, "Reduce expenses"), (-5, "Reduce expenses")],
)
def test_the_total_decides_the_recommendation(
    agents: Mapping[str, Agent], new_context: Contexts, total: float, recommendation: str
) -> None:
    output = agents["goal_recommender"].run({"analysis": {"total": total}}, new_context())
    assert output == {"recommendations": [recommendation]}


def test_an_added_transaction_is_listed_and_reported(coordinate: Run) -> None:
    added = coordinate("add_transaction", transaction={"amount": 12.5, "description": "Tea", "type": "expense"})
    entry = {"id": "run:step", "amount": 12.5, "description": "Tea", "type": "expense"}
    assert added == {"transaction": entry, "transactions": [entry]}
    assert coordinate("get_transactions") == {"count": 1, "transactions": [entry]}
    report = {"total": -12.5, "positive": 0, "negative": -12.5, "count": 1}
    assert coordinate("get_report") == {"report": report, "transactions": [entry]}


def test_a_second_attempt_adds_nothing_twice(coordinate: Run) -> None:
    for _ in range(2):
        coordinate("add_transaction", transaction={"amount": 5})
    coordinate("add_transaction", key="run:other", transaction={"amount": 5})
    assert coordinate("get_report")["report"]["total"] == 10


@pytest.mark.parametrize(("amount", "kind"), [(5, "income"), (-5, "expense")])
def test_a_missing_type_follows_the_sign(coordinate: Run, amount: int, kind: str) -> None:
    output = coordinate("add_transaction", transaction={"amount": amount})
    assert (output["transaction"]["type"], output["transaction"]["description"]) == (kind, "")


@pytest.mark.parametrize("amount", [math.nan, 1e13, True, None])
def test_a_transaction_that_is_not_money_never_reaches_the_ledger(coordinate: Run, amount: Any) -> None:
    with pytest.raises(ValueError, match="an amount must"):
        coordinate("add_transaction", transaction={"amount": amount})
    assert coordinate("get_transactions")["count"] == 0


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, ""),
        ({"action": "steal"}, "/action"),
        ({"action": "add_transaction"}, ""),
        ({"action": "add_transaction", "transaction": {"description": "Tea"}}, "/transaction"),
        ({"action": "add_transaction", "transaction": {"amount": "5"}}, "/transaction/amount"),
    ],
)
def test_the_coordinators_schema_refuses_invalid_actions(
    catalogue: AgentCatalogue, given: dict[str, Any], pointer: str
) -> None:
    assert [fault.pointer for fault in catalogue.find_input_faults("financial_coordinator", given)] == [pointer]


def test_an_unknown_action_is_refused(coordinate: Run) -> None:
    with pytest.raises(ValueError, match="action must be"):
        coordinate("steal")


@pytest.mark.parametrize("action", ["add_transaction", "get_transactions", "get_report"])
def test_the_analyzer_accepts_every_output_of_the_coordinator(
    catalogue: AgentCatalogue, coordinate: Run, action: str
) -> None:
    output = coordinate(action, transaction={"amount": -3, "description": "Bus", "type": "expense"})
    assert catalogue.find_output_faults("financial_coordinator", output) == []
    assert catalogue.find_input_faults("cashflow_analyzer", output) == []
