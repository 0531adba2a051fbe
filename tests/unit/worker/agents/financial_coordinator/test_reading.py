"""What providers send is read exactly, or told as unread; nothing is guessed, dropped in silence or fatal."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.agents.financial_coordinator.provider_amounts import Unreadable, amount_of, date_of
from worker.agents.financial_coordinator.transaction_reader import CheckedTransaction, ReadingNotes, TransactionReader


def read(*raw: Any, account: str | None = None) -> tuple[list[CheckedTransaction], ReadingNotes]:
    notes = ReadingNotes()
    return list(TransactionReader(notes, account).read(raw)), notes


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [
        ("12.50", "", "12.50"),
        ("1.234,56", "EUR", "1234.56"),
        ("1,234.56", "USD", "1234.56"),
        ("1 234,56", "EUR", "1234.56"),
        ("1\N{NARROW NO-BREAK SPACE}234,56", "EUR", "1234.56"),
        ("1'234.56", "CHF", "1234.56"),
        ("1\N{RIGHT SINGLE QUOTATION MARK}234.56", "CHF", "1234.56"),
        ("1.234.567", "", "1234567"),
        ("1,23,456.78", "INR", "123456.78"),
        ("(12,50)", "EUR", "-12.50"),
        ("( 1.000,00 )", "EUR", "-1000.00"),
        ("-12.50", "", "-12.50"),
        ("12.50-", "", "-12.50"),
        ("\N{MINUS SIGN}3", "", "-3"),
        ("+7", "", "7"),
        (" 7 ", "", "7"),
        (".5", "", "0.5"),
        ("0,125", "", "0.125"),
        ("1234.567", "", "1234.567"),
        ("1,234", "EUR", "1234"),
        ("1.234", "KWD", "1.234"),
    ],
)
def test_an_amount_is_read_as_it_was_meant(text: str, currency: str, amount: str) -> None:
    assert amount_of(text, currency) == Decimal(amount)


@pytest.mark.parametrize(
    ("text", "currency"), [("1,234", ""), ("1.234", ""), ("1.234", "EUR"), ("1,234", "KWD"), ("999.999", "USD")]
)
def test_an_amount_that_may_be_a_thousand_times_as_much_is_never_guessed(text: str, currency: str) -> None:
    with pytest.raises(Unreadable, match="ambiguous"):
        amount_of(text, currency)


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "1e3", "", " ", "-", "()", "(-5)", "-5-", "--5", "12,34,5", "1.23.4", "1.2,3.4", "12 34",
     "5 EUR", "0x10", "٣", "1" * 65, "9" * 13, math.nan, math.inf, True, None, [], {}, 10**13, Decimal("1e-30")],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_amount_is_refused_with_a_reason(value: Any) -> None:
    with pytest.raises(Unreadable, match="amount"):
        amount_of(value, "EUR")


@pytest.mark.parametrize(
    ("value", "currency", "amount"),
    [(1250, "EUR", "12.50"), ("-1250", "USD", "-12.50"), ("(99)", "EUR", "-0.99"), (1250, "JPY", "1250"),
     (1250, "KWD", "1.250"), ("1,250", "EUR", "12.50"), (Decimal("1E+3"), "EUR", "10.00")],
)  # fmt: skip
def test_minor_units_are_those_of_the_currency(value: Any, currency: str, amount: str) -> None:
    assert amount_of(value, currency, is_minor=True) == Decimal(amount)


@pytest.mark.parametrize(("value", "currency"), [(1250, ""), (12.5, "EUR"), ("12.5", "EUR")])
def test_minor_units_need_a_currency_and_a_whole_number(value: Any, currency: str) -> None:
    with pytest.raises(Unreadable, match="minor units"):
        amount_of(value, currency, is_minor=True)


@pytest.mark.parametrize(
    ("text", "iso", "day"),
    [
        ("2026-01-31", "2026-01-31", "2026-01-31"),
        ("2026-01-31T23:30:00-05:00", "2026-01-31T23:30:00-05:00", "2026-01-31"),
        ("2026-01-31 23:30:00Z", "2026-01-31T23:30:00+00:00", "2026-01-31"),
        ("2026-01-31T23:30", "2026-01-31T23:30:00", "2026-01-31"),
        ("20260131", "2026-01-31", "2026-01-31"),
    ],
)
def test_a_date_becomes_iso_and_keeps_the_day_that_was_written(text: str, iso: str, day: str) -> None:
    found, found_day = date_of(text)
    assert (found, found_day.isoformat()) == (iso, day)


@pytest.mark.parametrize("value", ["31/01/2026", "2026-02-30", "", "yesterday", 1767225600, True, "2" * 100])
def test_what_is_no_date_is_refused(value: Any) -> None:
    with pytest.raises(Unreadable, match="date"):
        date_of(value)


def test_a_transaction_is_read_in_all_its_parts() -> None:
    raw = {"id": 7, "amount": "12,50", "currency": "eur", "type": "debit", "date": "2026-01-31", "payee": " A\n B ",
           "category": "food", "account": "main", "description": None, "more": []}  # fmt: skip
    [transaction], notes = read(raw, account="main")
    assert transaction.to_json() == {
        "id": 7, "amount": -12.5, "description": "", "type": "debit", "currency": "EUR", "date": "2026-01-31",
        "payee": "A B", "category": "food", "account": "main",
    }  # fmt: skip
    assert notes.unread_count == 0


def test_a_transaction_that_comes_again_is_dropped_and_told() -> None:
    first, again = {"id": 1, "amount": 5}, {"id": "1", "amount": "5.00"}
    other = {"id": 1, "amount": 6}
    found, notes = read(first, again, other, {"id": 2, "amount": 5})
    assert [transaction.id for transaction in found] == [1, 2]
    assert notes.to_json() == {
        "duplicates": {"count": 1, "entries": [{"id": "1"}]},
        "unread": {
            "count": 1,
            "entries": [{"id": "1", "reason": "the id was used before, with another amount, currency or date"}],
        },
    }


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("text", "must be an object"),
        ({"amount": 1}, "needs an id"),
        ({"id": True, "amount": 1}, "needs an id"),
        ({"id": "", "amount": 1}, "an id has"),
        ({"id": 1}, "needs amount or amount_minor"),
        ({"id": 1, "amount": 1, "amount_minor": 100}, "needs amount or amount_minor"),
        ({"id": 1, "amount": 1, "unit": "cents"}, "unit must be"),
        ({"id": 1, "amount": 1, "currency": "€"}, "currency must be"),
        ({"id": 1, "amount": 1, "description": 5}, "description must be a text"),
        ({"id": 1, "amount": 1, "account": "other"}, "belongs to the account 'other'"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_reason(raw: Any, reason: str) -> None:
    found, notes = read(raw, account="main")
    assert found == []
    assert notes.unread_count == 1
    assert reason in notes.unread[0]["reason"]


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["1,5", "EUR"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARTS = ("id", "amount", "amount_minor", "unit", "currency", "date", "description", "type", "payee", "account")


@settings(max_examples=50)
@given(st.lists(JSON_VALUES | st.dictionaries(st.sampled_from(PARTS), JSON_VALUES), max_size=5))
def test_no_payload_is_fatal_and_none_is_dropped_in_silence(raw: list[Any]) -> None:
    found, notes = read(*raw)
    assert len(found) + notes.unread_count + notes.duplicate_count == len(raw)
    orjson.dumps([[transaction.to_json() for transaction in found], notes.to_json()])


def test_a_hundred_thousand_transactions_are_read_and_a_nan_among_them_is_told() -> None:
    payload = [{"id": number, "amount": "0.01"} for number in range(100_000)] + [{"id": "x", "amount": math.nan}]
    found, notes = read(*json.loads(json.dumps(payload)))
    assert sum(transaction.amount for transaction in found) == 1_000
    assert notes.unread == [{"id": "x", "reason": "amount must be a finite number within ±999,999,999,999.99"}]
