"""Where the coordinator's transactions are: a provider if its URL is set, else the built-in ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from worker.agent_errors import PermanentError
from worker.context import AgentContext

from .provider_client import ProviderClient
from .transaction_reader import ReadingNotes, TransactionReader

URL_SETTING: Final = "FINANCIAL_COORDINATOR_API_URL"
ACCOUNTS_MAX: Final = 5_000
_CHECKED_EVERY: Final = 1_000


class TransactionSource(Protocol):
    """A place that lists transactions; ``account`` None means all, ``""`` those of no account."""

    name: str

    def transactions(self, account: str | None) -> Iterator[Any]:
        """Yield raw transactions, page by page."""

    def accounts(self) -> list[str]:
        """Return the accounts of all transactions, sorted; ``""`` if some have none."""


class LedgerSource:
    """The built-in ledger."""

    name = "ledger"

    def __init__(self, ctx: AgentContext, check_stop: Callable[[], None]) -> None:
        self._ledger = ctx.ledger
        self._check_stop = check_stop

    def transactions(self, account: str | None) -> Iterator[Mapping[str, Any]]:
        """Yield the ledger's transactions."""
        for number, transaction in enumerate(self._ledger.all_transactions(account)):
            if number % _CHECKED_EVERY == 0:
                self._check_stop()
            yield transaction

    def accounts(self) -> list[str]:
        """Return the ledger's accounts."""
        return _checked_accounts(list(self._ledger.accounts(ACCOUNTS_MAX + 1)))


class ProviderSource:
    """A provider, whose protocol has no list of accounts: they are found in its transactions."""

    name = "provider"

    def __init__(self, client: ProviderClient) -> None:
        self.client = client

    def transactions(self, account: str | None) -> Iterator[Any]:
        """Yield the provider's transactions; those of no account are among all."""
        yield from self.client.transactions(account)

    def accounts(self) -> list[str]:
        """Read all transactions once, and return the accounts that they name."""
        found = set[str]()
        for transaction in TransactionReader(ReadingNotes()).read(self.client.transactions(None)):
            found.add(transaction.texts["account"])
            if len(found) > ACCOUNTS_MAX:
                break
        return _checked_accounts(sorted(found))


def source_of(
    ctx: AgentContext, check_stop: Callable[[], None], *, accepts_stale: bool = False
) -> LedgerSource | ProviderSource:
    """Return the source that the settings name."""
    url = ctx.settings.get(URL_SETTING, "").strip()
    if not url:
        return LedgerSource(ctx, check_stop)
    return ProviderSource(ProviderClient(ctx.http, url, check_stop, accepts_stale=accepts_stale))


def _checked_accounts(accounts: list[str]) -> list[str]:
    if len(accounts) > ACCOUNTS_MAX:
        raise PermanentError(f"there are over {ACCOUNTS_MAX:,} accounts: name those to review in 'accounts'")
    return accounts
