"""The built-in ledger in MongoDB: the transactions of the financial coordinator if no provider is configured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from pymongo.errors import DuplicateKeyError

from shared.store.database import Database, db_call
from shared.store.server_clock import Clock

TRANSACTIONS_MAX: Final = 1_000
_PAGE: Final = 5_000


class MongoLedger:
    """The transactions of one integrator; each is recorded once, by the idempotency key of the step that made it."""

    def __init__(self, database: Database, clock: Clock, integrator: str) -> None:
        self._database = database
        self._clock = clock
        self._integrator = integrator

    def add(self, key: str, transaction: Mapping[str, Any]) -> Mapping[str, Any]:
        """Record a transaction under ``key`` and return it; a second call returns the first transaction."""
        ledger = self._database.collection("ledger")
        query = {"_id": f"{self._integrator}:{key}"}
        entry = {**query, "integrator": self._integrator, "at": self._clock.now(), "json": orjson.dumps(transaction)}
        if account := transaction.get("account"):
            entry["account"] = str(account)
        try:
            with db_call(self._database):
                ledger.insert_one(entry)
        except DuplicateKeyError:
            with db_call(self._database, writes=False):
                entry = ledger.find_one(query) or entry
        return _transaction(entry)

    def transactions(self, account: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Return the newest 1,000 transactions, all or those of one account (``""``: of none), oldest first."""
        with db_call(self._database, writes=False):
            newest = list(
                self._database.collection("ledger")
                .find(self._filter(account))
                .sort([("at", -1), ("_id", -1)])
                .limit(TRANSACTIONS_MAX)
            )
        return [_transaction(entry) for entry in reversed(newest)]

    def all_transactions(self, account: str | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield every transaction by its id, a page to a call; one that is added meanwhile may be missing.

        A transaction without a ``date`` gets the moment at which it was added.
        """
        after, end = f"{self._integrator}:", f"{self._integrator};"  # ';' follows ':'
        while True:
            with db_call(self._database, writes=False):
                query = {"_id": {"$gt": after, "$lt": end}, **self._filter(account)}
                page = list(self._database.collection("ledger").find(query).sort("_id", 1).limit(_PAGE))
            yield from map(_dated_transaction, page)
            if len(page) < _PAGE:
                return
            after = page[-1]["_id"]

    def accounts(self, limit: int) -> Sequence[str]:
        """Return the accounts of all transactions, sorted, at most ``limit``; ``""`` if some have no account."""
        with db_call(self._database, writes=False):
            groups = list(self._database.collection("ledger").aggregate(accounts_pipeline(self._integrator, limit)))
        return [str(group["_id"] or "") for group in groups]

    def _filter(self, account: str | None) -> dict[str, Any]:
        # None matches a document without the field, as in an index.
        return {"integrator": self._integrator} | ({} if account is None else {"account": account or None})


def accounts_pipeline(integrator: str, limit: int) -> list[dict[str, Any]]:
    """Return the aggregation that finds the accounts of an integrator, skipping in the index from one to the next."""
    return [
        {"$match": {"integrator": integrator}},
        {"$sort": {"integrator": 1, "account": 1}},
        {"$group": {"_id": "$account"}},
        {"$sort": {"_id": 1}},
        {"$limit": limit},
    ]


def _transaction(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    transaction: dict[str, Any] = orjson.loads(entry["json"])
    return transaction


def _dated_transaction(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    transaction = _transaction(entry)
    return transaction if transaction.get("date") else {**transaction, "date": entry["at"].isoformat()}
