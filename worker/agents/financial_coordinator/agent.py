"""Keeps transactions, in the built-in ledger or at a provider: adds one once, lists, sums, and reviews all accounts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from worker.agent_errors import InvalidInputError, PermanentError
from worker.context import AgentContext
from worker.money import signed_amount_of

from .coordination_run import CoordinationRun, check_cancelled
from .provider_amounts import Unreadable, date_of
from .provider_client import ProviderClient
from .transaction_reader import CheckedTransaction, ReadingNotes, TransactionReader, currency_of, read_transaction
from .transaction_reports import (
    LISTED_MAX,
    ledger_report,
    newest_of,
    report_of_reports,
    report_of_transactions,
)
from .transaction_sources import LedgerSource, source_of

PROVIDER_WAIT_S: Final = 60.0
_ACTIONS: Final = ("get_transactions", "add_transaction", "get_report", "coordinate")
_OPTIONAL: Final[dict[str, Callable[[Any], str]]] = {
    "currency": currency_of,
    "date": lambda value: date_of(value)[0],
    "payee": str,
    "category": str,
    "account": str,
}
_ALREADY_ADDED: Final = 409
_NO_REPORTS: Final = frozenset({404, 405, 501})


def run(given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    """Do ``given["action"]``; all but ``coordinate`` return ``transactions``, the newest 1,000, for the next step."""
    action = given["action"]
    if action not in _ACTIONS:
        raise ValueError(f"action must be {', '.join(_ACTIONS[:-1])} or {_ACTIONS[-1]}, not {action!r:.64}")
    check_stop = partial(check_cancelled, ctx)
    if action == "coordinate":
        wait_s = given.get("provider_wait_s", PROVIDER_WAIT_S)
        return {"review": CoordinationRun(ctx, source_of(ctx, check_stop), wait_s).review(given.get("accounts"))}
    source = source_of(ctx, check_stop, accepts_stale=True)
    if isinstance(source, LedgerSource):
        return _act_on_ledger(action, given, ctx)
    return _act_on_provider(action, given, ctx, source.client)


def _act_on_ledger(action: str, given: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    if action == "add_transaction":
        # The key is the same for every attempt of this step, so an attempt after a crash adds nothing twice.
        outcome["transaction"] = dict(ctx.ledger.add(ctx.idempotency_key, _entry_of(given["transaction"], ctx)))
    account = given.get("account")
    transactions = [dict(transaction) for transaction in ctx.ledger.transactions(account)]
    if action == "get_report":
        outcome["report"] = ledger_report(ctx, account)
    return _listed(action, outcome, transactions, ctx)


def _act_on_provider(action: str, given: dict[str, Any], ctx: AgentContext, client: ProviderClient) -> dict[str, Any]:
    notes, outcome, account = ReadingNotes(), dict[str, Any](), given.get("account")
    if action == "add_transaction":
        outcome["transaction"] = _add_to_provider(_entry_of(given["transaction"], ctx), ctx, client)
    if action == "get_report":
        outcome["report"] = _provider_report(account, ctx, client, notes)
    # The notes of the list alone: a report by transactions has read the same ones.
    list_notes = ReadingNotes()
    transactions = newest_of(_read(client, account, list_notes))
    notes.merge(list_notes)
    if notes.unread_count or notes.duplicate_count:
        outcome |= notes.to_json()
        ctx.log(
            "some transactions were left out", "warning", unread=notes.unread_count, duplicates=notes.duplicate_count
        )
    if client.is_stale:
        outcome["stale"] = True
        ctx.log("the provider is away: these are its last good answers", level="warning")
    return _listed(action, outcome, transactions, ctx)


def _listed(
    action: str, outcome: dict[str, Any], transactions: list[dict[str, Any]], ctx: AgentContext
) -> dict[str, Any]:
    if action == "get_transactions":
        outcome["count"] = len(transactions)
    if len(transactions) >= LISTED_MAX:
        ctx.log(f"at most the newest {LISTED_MAX:,} transactions are listed; a report sums all", level="warning")
    if len({transaction.get("currency") for transaction in transactions}) > 1:
        ctx.log("the listed transactions are in several currencies: do not add them up", level="warning")
    ctx.log(f"did {action}", transactions=len(transactions))
    return {**outcome, "transactions": transactions}


def _read(client: ProviderClient, account: str | None, notes: ReadingNotes) -> Iterator[CheckedTransaction]:
    return TransactionReader(notes, account).read(client.transactions(account))


def _provider_report(
    account: str | None, ctx: AgentContext, client: ProviderClient, notes: ReadingNotes
) -> dict[str, Any]:
    try:
        return report_of_reports(client.reports(account), notes)
    except PermanentError as error:
        if getattr(error, "status", None) not in _NO_REPORTS:
            raise
    ctx.log("the provider makes no reports: its transactions are summed")
    return report_of_transactions(_read(client, account, ReadingNotes()))


def _add_to_provider(entry: dict[str, Any], ctx: AgentContext, client: ProviderClient) -> dict[str, Any]:
    try:
        added = client.add(entry)
    except PermanentError as error:
        if getattr(error, "status", None) != _ALREADY_ADDED:
            raise
        ctx.log("the provider has this transaction already, from an earlier attempt")
        return entry
    if added is None:
        return entry
    try:
        return read_transaction({**entry, **added}).to_json()
    except Unreadable as error:
        ctx.log(f"added, but the provider's answer cannot be read: {error}", level="warning")
        return entry


def _entry_of(transaction: dict[str, Any], ctx: AgentContext) -> dict[str, Any]:
    kind = "expense" if signed_amount_of(transaction) < 0 else "income"
    entry = {
        "id": ctx.idempotency_key,
        "amount": transaction["amount"],
        "description": transaction.get("description") or "",
        "type": transaction.get("type") or kind,
    }
    try:
        optional = {name: read(transaction[name]) for name, read in _OPTIONAL.items() if transaction.get(name)}
    except Unreadable as error:
        raise InvalidInputError(f"/transaction: {error}") from error
    return entry | optional
