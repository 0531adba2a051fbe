"""The quick actions at a provider: pages, hostile answers, sums by currency, and a transaction that is added once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue
from tests.finance_provider import FinanceProvider
from worker.agent_errors import InvalidInputError, PermanentError
from worker.context import AgentContext

Act = Callable[..., dict[str, Any]]


def entries(count: int, **parts: Any) -> list[dict[str, Any]]:
    return [
        {"id": number, "amount": "1,50", "date": f"2026-01-{number % 28 + 1:02}", **parts} for number in range(count)
    ]


def test_pages_are_read_to_the_last_one_and_the_newest_are_listed(
    act: Act, provider: FinanceProvider, catalogue: AgentCatalogue
) -> None:
    provider.transactions = {"main": entries(1_250, account="main"), "other": [{"id": "x", "amount": 1}]}
    output = act("get_transactions", account="main")
    assert len(provider.requests) == 13
    assert output["count"] == 1_000
    dates = [transaction["date"] for transaction in output["transactions"]]
    assert dates == sorted(dates)
    assert dates[0] == "2026-01-06", "the 250 oldest of 1,250 are left out"
    assert catalogue.find_input_faults("cashflow_analyzer", output) == []


def test_the_next_page_may_be_an_url_of_the_same_origin(act: Act, provider: FinanceProvider) -> None:
    provider.transactions = {"": entries(3)}
    provider.page_size = 2
    page = provider._page
    provider._page = lambda account, start: {  # type: ignore[method-assign]
        **page(account, start),
        "next": [f"{provider.url}/transactions?cursor=1", "/transactions?cursor=2", None][start],
    }
    assert act("get_transactions")["count"] == 3
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "must be an object with a list 'transactions'"),
        (b'"text"', "must be an object"),
        (b'{"transactions": {"id": 1}}', "must be an object with a list"),
        (b"<html>", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"transactions": [], "next": 5}', "'next' must be"),
        (b'{"transactions": [], "next": "same"}', "have no end"),
        (b'{"transactions": [], "next": "http://elsewhere.example/"}', "another origin"),
        (b'{"transactions": [], "next": "//elsewhere.example/"}', "another origin"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_a_hostile_answer_is_a_permanent_error_in_words(
    act: Act, provider: FinanceProvider, body: bytes, reason: str
) -> None:
    provider.body = body
    with pytest.raises(PermanentError, match=reason):
        act("get_transactions")


def test_what_cannot_be_read_is_told_beside_what_can(act: Act, provider: FinanceProvider) -> None:
    first = b'{"id": 1, "amount": 5}'
    provider.body = b'{"currency": "EUR", "transactions": [%b, {"id": 2, "amount": NaN}, 7, %b]}' % (first, first)
    output = act("get_transactions")
    assert output["transactions"] == [{"id": 1, "amount": 5, "description": "", "type": "income", "currency": "EUR"}]
    assert (output["unread"]["count"], output["duplicates"]["count"]) == (2, 1)


def test_an_amount_is_the_decimal_that_was_written_and_no_double(act: Act, provider: FinanceProvider) -> None:
    provider.body = b'{"transactions": [{"id": 1, "amount": 999999999999.01499, "currency": "EUR"}]}'
    review = act("coordinate", accounts=["main"])["review"]
    assert review["overall"][0]["net"] == "999999999999.01", "as a double it is ...015, which rounds to .02"


def test_the_providers_own_reports_are_added_up_by_currency(act: Act, provider: FinanceProvider) -> None:
    provider.reports = {
        "reports": [
            {"currency": "EUR", "total": "1.000,50", "positive": "1.200,50", "negative": "(200,00)", "count": 3},
            {"currency": "EUR", "total": 1, "positive": 1, "negative": 0, "count": 1},
            {"currency": "JPY", "total": -5, "positive": 0, "negative": -5, "count": 1},
            {"currency": "EUR", "total": 9, "positive": 1, "negative": 0, "count": 1},
        ]
    }
    output = act("get_report")
    assert output["report"] == {
        "count": 5,
        "currencies": [
            {"currency": "EUR", "total": 1001.5, "positive": 1201.5, "negative": -200, "count": 4},
            {"currency": "JPY", "total": -5, "positive": 0, "negative": -5, "count": 1},
        ],
    }
    assert output["unread"]["entries"] == [
        {"report": 3, "reason": "a report's total must be positive and negative together, and is 9"}
    ]


def test_without_reports_the_providers_transactions_are_summed(act: Act, provider: FinanceProvider) -> None:
    provider.transactions = {
        "": [{"id": 1, "amount": "10.10", "currency": "EUR"}, {"id": 2, "amount": "(3)", "currency": "EUR"}]
    }
    assert act("get_report")["report"] == {
        "total": 7.1, "positive": 10.1, "negative": -3, "count": 2, "currency": "EUR",
    }  # fmt: skip


def test_a_transaction_is_added_once_however_often_the_step_is_tried(
    act: Act, provider: FinanceProvider, provider_context: Callable[..., AgentContext]
) -> None:
    transaction = {"amount": -12.5, "description": "Tea", "currency": "EUR", "date": "2026-01-31", "account": "main"}
    for attempt in (1, 2):
        output = act("add_transaction", provider_context(attempt=attempt), transaction=transaction)
    key = provider_context().idempotency_key
    assert provider.posts == {key: {**transaction, "id": key, "type": "expense"}}
    assert provider.post_count == 2
    assert output["transaction"]["id"] == key
    assert [entry["amount"] for entry in output["transactions"]] == [-12.5]


def test_a_provider_that_says_409_has_the_transaction_already(
    act: Act, provider: FinanceProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "post", lambda *_: (409, b"{}"))
    assert act("add_transaction", transaction={"amount": 5})["transaction"]["amount"] == 5


@pytest.mark.parametrize("answer", [b"", b"ok", b"[]", b'{"transaction": 5}', b'{"amount": "many"}'])
def test_an_answer_that_cannot_be_read_does_not_undo_the_addition(
    act: Act, provider: FinanceProvider, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(provider, "post", lambda *_: (201, answer))
    assert act("add_transaction", transaction={"amount": 5})["transaction"]["amount"] == 5


def test_a_date_that_is_none_is_an_invalid_input_and_reaches_nobody(act: Act, provider: FinanceProvider) -> None:
    with pytest.raises(InvalidInputError, match="ISO 8601"):
        act("add_transaction", transaction={"amount": 5, "date": "tomorrow"})
    assert provider.post_count == 0


@pytest.mark.parametrize("url", ["ftp://x", "finance.example", "https://", "https://x/?key=1"])
def test_an_url_that_cannot_be_called_is_told(act: Act, new_context: Callable[..., AgentContext], url: str) -> None:
    with pytest.raises(PermanentError, match="FINANCIAL_COORDINATOR_API_URL must be"):
        act("get_transactions", new_context(settings={"FINANCIAL_COORDINATOR_API_URL": url}))


def test_ledger_transactions_of_several_currencies_are_summed_apart(
    act: Act, new_context: Callable[..., AgentContext]
) -> None:
    ledger_context = new_context()
    for number, currency in enumerate(("EUR", "EUR", "JPY")):
        transaction = {"amount": 5, "currency": currency, "account": "main"}
        act("add_transaction", new_context(idempotency_key=f"run:{number}"), transaction=transaction)
    report = act("get_report", ledger_context, account="main")["report"]
    assert json.dumps(report["currencies"]) == json.dumps(
        [
            {"currency": "EUR", "total": 10, "positive": 10, "negative": 0, "count": 2},
            {"currency": "JPY", "total": 5, "positive": 5, "negative": 0, "count": 1},
        ]
    )
    assert act("get_transactions", ledger_context, account="other")["count"] == 0
