"""The ledger in MongoDB: each transaction once, and all of them to those who sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import pytest

from shared.store import ledger as ledger_module
from shared.store.database import Database
from shared.store.ledger import MongoLedger
from tests.builders import ManualClock


@pytest.fixture
def database(mongodb_url: str) -> Iterator[Database]:
    with closing(Database(mongodb_url, "worker", 5)) as opened:
        opened.ensure_indexes()
        yield opened


def test_all_transactions_come_over_many_pages_and_none_of_another_integrator(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_PAGE", 7)
    ledgers = {name: MongoLedger(database, ManualClock(), name) for name in ("public", "public0", "other")}
    for name, ledger in ledgers.items():
        for number in range(21):
            ledger.add(f"run:{number}", {"id": f"{name}-{number}"})
    found = [str(transaction["id"]) for transaction in ledgers["public"].all_transactions()]
    assert sorted(found) == sorted(f"public-{number}" for number in range(21))


def test_an_empty_ledger_has_no_transactions(database: Database) -> None:
    assert list(MongoLedger(database, ManualClock(), "public").all_transactions()) == []


def test_transactions_are_found_by_their_account_and_those_of_none_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_PAGE", 2)
    ledger = MongoLedger(database, ManualClock(), "public")
    for number, account in enumerate(["b", "a", "", "b", "a", "b"]):
        ledger.add(f"run:{number}", {"id": number} | ({"account": account} if account else {}))
    MongoLedger(database, ManualClock(), "other").add("run:9", {"id": 9, "account": "c"})

    def ids(account: str | None) -> list[list[object]]:
        listed = [ledger.transactions(account), ledger.all_transactions(account)]
        return [[transaction["id"] for transaction in transactions] for transactions in listed]

    assert [ids(account) for account in ("a", "b", "", "c")] == [[[1, 4]] * 2, [[0, 3, 5]] * 2, [[2]] * 2, [[], []]]
    assert ids(None) == [[0, 1, 2, 3, 4, 5]] * 2
    assert ledger.accounts(10) == ["", "a", "b"]
    assert ledger.accounts(2) == ["", "a"]


def test_the_accounts_are_found_without_reading_each_transaction(database: Database) -> None:
    ledger = MongoLedger(database, ManualClock(), "public")
    for number in range(60):
        ledger.add(f"run:{number}", {"id": number, "account": f"account {number % 3}"})
    assert len(ledger.accounts(10)) == 3
    plan = database.collection("ledger").database.command(
        "explain",
        {"aggregate": "ledger", "pipeline": ledger_module.accounts_pipeline("public", 10), "cursor": {}},
        verbosity="executionStats",
    )
    assert "DISTINCT_SCAN" in str(plan)
    assert "'totalKeysExamined': 60" not in str(plan)


def test_a_transaction_without_a_date_has_the_moment_at_which_it_was_added_in_a_report(database: Database) -> None:
    ledger = MongoLedger(database, ManualClock(), "public")
    ledger.add("run:1", {"id": 1})
    ledger.add("run:2", {"id": 2, "date": "2020-02-02"})
    dates = [str(transaction["date"]) for transaction in ledger.all_transactions()]
    assert datetime.fromisoformat(dates[0]).tzinfo is not None
    assert dates[1] == "2020-02-02"
    assert [transaction.get("date") for transaction in ledger.transactions()] == [None, "2020-02-02"]
