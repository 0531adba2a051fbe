"""The ledger in MongoDB: each transaction once, and all of them to those who sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

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
