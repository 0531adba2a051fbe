"""The review of a ledger whose figures were worked out by hand: totals, months, categories, recurring, forecast."""

from __future__ import annotations

import decimal
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

import orjson
import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue
from worker.agent_loader import Agent
from worker.agents.financial_coordinator.account_review import AccountFindings, analyse
from worker.agents.financial_coordinator.coordination_state import CoordinationState
from worker.agents.financial_coordinator.transaction_reader import ReadingNotes, TransactionReader
from worker.context import AgentContext
from worker.testing.in_memory import InMemoryLedger

Review = Callable[..., dict[str, Any]]

HOUSEHOLD = [
    ("salary", 3000, "2026-01-31", "ACME Ltd", "salary"),
    ("salary", 3000, "2026-02-28", "ACME Ltd", "salary"),
    ("salary", 3000, "2026-03-31", "ACME Ltd", "salary"),
    ("rent", -1200.10, "2026-01-01", "Rent 01/2026", "home"),
    ("rent", -1200.10, "2026-02-01", "Rent 02/2026", "home"),
    ("rent", -1200.10, "2026-03-01", "Rent 03/2026", "home"),
    ("shop", -80.05, "2026-01-10", "Corner Shop", "food"),
    ("shop", -19.95, "2026-02-03", "Corner Shop", "food"),
    ("shop", -0.30, "2026-03-30", "Corner Shop", None),
]


@pytest.fixture
def review(agents: Mapping[str, Agent], new_context: Callable[..., AgentContext], catalogue: AgentCatalogue) -> Review:
    def make(**given: Any) -> dict[str, Any]:
        given = {"action": "coordinate", **given}
        assert catalogue.find_input_faults("financial_coordinator", given) == []
        output: dict[str, Any] = agents["financial_coordinator"].run(given, new_context())
        assert catalogue.find_output_faults("financial_coordinator", output) == []
        return dict(output["review"])

    return make


def fill(ledger: InMemoryLedger, account: str = "main", currency: str = "EUR") -> None:
    for number, (_, amount, day, payee, category) in enumerate(HOUSEHOLD):
        key = f"{account}-{currency}-{number}"
        entry = {"id": key, "amount": amount, "description": "", "type": "income" if amount > 0 else "expense",
                 "account": account, "currency": currency, "date": day, "payee": payee}  # fmt: skip
        ledger.add(key, entry | ({"category": category} if category else {}))


def findings_of(*raw: dict[str, Any], account: str = "main") -> AccountFindings:
    notes = ReadingNotes()
    numbered = ({"id": number, "currency": "EUR", **entry} for number, entry in enumerate(raw))
    return analyse(account, TransactionReader(notes).read(numbered), notes)


def test_an_empty_ledger_gives_an_empty_and_valid_review(review: Review) -> None:
    found = review()
    assert (found["accounts_total"], found["accounts"], found["overall"]) == (0, [], [])


def test_the_figures_of_an_account_are_those_worked_out_by_hand(review: Review, ledger: InMemoryLedger) -> None:
    fill(ledger)
    [account] = review()["accounts"]
    [euros] = account.pop("currencies")
    assert account == {
        "account": "main", "status": "reviewed", "detail": "full", "transactions": 9, "unread": 0, "duplicates": 0,
    }  # fmt: skip
    # expenses: 3 x 1200.10 + 80.05 + 19.95 + 0.30 = 3700.60; saved: 5299.40 of 9000
    assert (euros["income"], euros["expenses"], euros["net"]) == ("9000.00", "-3700.60", "5299.40")
    assert euros["savings_rate"] == 0.5888
    assert [(each["month"], each["expenses"], each["net"]) for each in euros["months"]] == [
        ("2026-01", "-1280.15", "1719.85"), ("2026-02", "-1220.05", "1779.95"), ("2026-03", "-1200.40", "1799.60"),
    ]  # fmt: skip
    assert [(each["category"], each["net"]) for each in euros["categories"]] == [
        ("salary", "9000.00"), ("home", "-3600.30"), ("food", "-100.00"), ("uncategorised", "-0.30"),
    ]  # fmt: skip
    assert [movement["amount"] for movement in euros["largest"]] == ["3000.00"] * 3 + ["-1200.10"] * 2
    # January and February are complete: income 3000, expenses (1280.15 + 1220.05) / 2
    assert euros["forecast"] == {
        "months_used": 2,
        "months": [
            {"month": month, "income": "3000.00", "expenses": "-1250.10", "net": "1749.90"}
            for month in ("2026-04", "2026-05", "2026-06")
        ],
    }
    # 3600.30 of 3700.60 is 97 %
    assert euros["recommendations"] == [
        {"code": "large_category", "currency": "EUR", "message": "EUR: 97 % of all spending is 'home'"}
    ]


def test_recurring_payments_have_their_interval_and_their_next_date(review: Review, ledger: InMemoryLedger) -> None:
    fill(ledger)
    recurring = review()["overall"][0]["recurring"]
    assert [(each["payee"], each["amount"], each["interval"], each["next_date"]) for each in recurring] == [
        ("ACME Ltd", "3000.00", "monthly", "2026-04-30"), ("Rent 03/2026", "-1200.10", "monthly", "2026-04-01"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gap_days", "amounts", "found"),
    [
        (7, [10, 10, 10], ["weekly"]),
        (14, [10, 10.5, 11], ["fortnightly"]),
        (91, [10, 10, 10], ["quarterly"]),
        (365, [10, 10, 10], ["yearly"]),
        (30, [10, 10], []),  # twice is no habit
        (10, [10, 10, 10], []),
        (30, [10, 10, 12], []),  # 20 % more is another price
        (30, [10, 500, 10, 500, 10], []),  # 60 days apart
        (30, [10, 10, 10, 700], ["monthly"]),
    ],
)
def test_a_payment_recurs_if_payee_amount_and_interval_agree(
    gap_days: int, amounts: list[float], found: list[str]
) -> None:
    days = [(date(2026, 1, 5) + timedelta(days=gap_days * number)).isoformat() for number in range(len(amounts))]
    raw = [
        {"amount": -amount, "date": day, "payee": f"Gym {number}"}
        for number, (amount, day) in enumerate(zip(amounts, days, strict=True))
    ]
    assert [each["interval"] for each in findings_of(*raw).recurring.get("EUR", ())] == found


def test_currencies_are_never_added_to_each_other(review: Review, ledger: InMemoryLedger) -> None:
    fill(ledger, "main", "EUR")
    fill(ledger, "main", "JPY")
    fill(ledger, "second", "EUR")
    found = review()
    assert [(each["currency"], each["income"]) for each in found["overall"]] == [
        ("EUR", "18000.00"), ("JPY", "9000"),
    ]  # fmt: skip
    assert [[each["currency"] for each in account["currencies"]] for account in found["accounts"]] == [
        ["EUR", "JPY"], ["EUR"],
    ]  # fmt: skip


def test_only_the_accounts_of_the_input_are_reviewed_in_its_order(review: Review, ledger: InMemoryLedger) -> None:
    for account in ("a", "b", "c"):
        fill(ledger, account)
    assert [account["account"] for account in review(accounts=["c", "a"])["accounts"]] == ["c", "a"]


def test_transactions_of_no_account_are_reviewed_too(review: Review, ledger: InMemoryLedger) -> None:
    ledger.add("old", {"id": "old", "amount": -5, "description": "Tea", "type": "expense"})
    [account] = review()["accounts"]
    assert (account["account"], account["currencies"][0]["net"]) == (None, "-5.00")
    assert account["currencies"][0]["currency"] is None
    assert account["currencies"][0]["recommendations"][0]["code"] == "spends_more_than_earns"


def test_sums_are_exact_whatever_the_decimal_context_of_the_thread_is(review: Review, ledger: InMemoryLedger) -> None:
    fill(ledger)
    with decimal.localcontext() as context:
        context.prec = 4
        assert review()["overall"][0]["expenses"] == "-3700.60"


def test_a_month_without_transactions_counts_as_zero_in_the_forecast() -> None:
    raw = [
        {"amount": -90, "date": "2026-01-15"},
        {"amount": -30, "date": "2026-03-01"},
        {"amount": -1, "date": "2026-04-02"},
    ]
    state = CoordinationState(["main"])
    state.add_findings(findings_of(*raw))
    forecast = state.review("ledger")["overall"][0]["forecast"]
    assert forecast["months_used"] == 3
    assert forecast["months"][0] == {"month": "2026-05", "income": "0.00", "expenses": "-40.00", "net": "-40.00"}


def test_a_checkpoint_of_many_accounts_of_hostile_size_stays_within_its_limit() -> None:
    accounts = [f"account {number:04}" for number in range(5_000)]
    state = CoordinationState(accounts)
    raw = [
        {"amount": number + 1, "date": f"20{number % 60 + 10}-{number % 12 + 1:02}-01", "category": f"{number} " * 15,
         "payee": "\N{SNOWMAN}" * 200, "currency": f"{chr(65 + number % 20)}AA"}
        for number in range(4_000)
    ]  # fmt: skip
    heavy = findings_of(*raw).figures
    assert {len(each.categories) for each in heavy.currencies} == {101}, "the 100 largest, and all others together"
    for account in accounts:
        state.add_findings(
            AccountFindings(account, heavy if account == accounts[0] else findings_of().figures, {}, ReadingNotes())
        )
    assert state.next_account is None
    assert len(orjson.dumps(state.to_json())) < 4 * 1024 * 1024
    assert len(orjson.dumps(state.review("ledger"))) < 4 * 1024 * 1024
    assert CoordinationState.from_json(orjson.loads(orjson.dumps(state.to_json()))).to_json() == state.to_json()


def test_with_many_accounts_each_report_is_shorter_and_says_so() -> None:
    findings = findings_of(
        *(
            {"amount": -number - 1, "date": f"2026-{number % 12 + 1:02}-01", "category": f"c{number}"}
            for number in range(50)
        )
    )
    assert [findings.to_json(limit)["detail"] for limit in (12_000, 3_000, 1_500, 700, 200)] == [
        "full", "short", "brief", "totals", "none",
    ]  # fmt: skip
