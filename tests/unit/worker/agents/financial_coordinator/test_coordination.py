"""The long run: account by account, resumed after its checkpoint, and not lost by one account that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.finance_provider import FinanceProvider, PlainHttp
from worker.agent_errors import PermanentError, TransientError
from worker.context import AgentContext
from worker.testing.in_memory import InMemoryCheckpoints, RecordingReporter

Act = Callable[..., dict[str, Any]]
Contexts = Callable[..., AgentContext]
ACCOUNTS = [f"account-{number:02}" for number in range(40)]


class Killed(BaseException):
    """Stands for a worker that is killed: nothing of the agent runs after it."""


@pytest.fixture
def accounts(provider: FinanceProvider) -> list[str]:
    """Fill the provider with 40 accounts, each with one income of 10 and a second page."""
    provider.page_size = 1
    provider.transactions = {
        account: [
            {"id": f"{account}-{number}", "amount": amount, "currency": "EUR", "account": account}
            for number, amount in enumerate((10, -4))
        ]
        for account in ACCOUNTS
    }
    return ACCOUNTS


class CountingCheckpoints(InMemoryCheckpoints):
    """Checkpoints that keep how many accounts were done at each."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[int] = []

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        self.done.append(state["next_index"])


class DyingHttp(PlainHttp):
    """A client whose worker is killed just before it fetches an account."""

    def __init__(self, account: str) -> None:
        super().__init__()
        self._account = account

    def request(self, method: str, url: str, **options: Any) -> Any:
        if (options.get("params") or {}).get("account") == self._account:
            raise Killed
        return super().request(method, url, **options)


def test_every_account_is_fetched_once_and_progress_rises_account_by_account(
    act: Act, provider: FinanceProvider, provider_context: Contexts, accounts: list[str]
) -> None:
    ctx = provider_context()
    review = act("coordinate", ctx, accounts=accounts)["review"]
    assert provider.fetches == dict.fromkeys(accounts, 1)
    assert review["overall"][0]["net"] == "240.00"
    assert (review["accounts_reviewed"], review["accounts_failed"]) == (40, 0)
    assert isinstance(ctx.reporter, RecordingReporter)
    percents = [percent for percent, _ in ctx.reporter.steps]
    assert percents == sorted(percents, key=lambda percent: percent or 0)
    assert len(set(percents)) == 41
    assert ctx.reporter.steps[1][1] == "1 of 40 accounts; now account-01"


def test_without_accounts_those_that_the_transactions_name_are_reviewed(
    act: Act, provider: FinanceProvider, accounts: list[str]
) -> None:
    provider.transactions[""] = [{"id": "loose", "amount": 7}]
    provider.page_size = 100
    review = act("coordinate")["review"]
    assert [account["account"] for account in review["accounts"]] == [None, *accounts]
    assert review["accounts"][0]["currencies"][0]["net"] == "7.00"
    assert review["overall"][1]["net"] == "240.00"


def test_after_the_loss_of_a_worker_no_account_is_fetched_a_third_time(
    act: Act, provider: FinanceProvider, provider_context: Contexts, accounts: list[str]
) -> None:
    checkpoints = InMemoryCheckpoints()
    for attempt, account in ((1, accounts[19]), (2, accounts[12]), (3, accounts[33])):
        with closing(DyingHttp(account)) as http, pytest.raises(Killed):
            act("coordinate", provider_context(checkpoints=checkpoints, attempt=attempt, http=http), accounts=accounts)
    review = act("coordinate", provider_context(checkpoints=checkpoints, attempt=4), accounts=accounts)["review"]
    assert review["overall"][0]["net"] == "240.00"
    assert max(provider.fetches.values()) == 2
    assert [account["account"] for account in review["accounts"]] == accounts


def test_slow_accounts_are_stored_one_by_one_and_quick_ones_not(
    act: Act, provider: FinanceProvider, provider_context: Contexts, accounts: list[str]
) -> None:
    def saved(delay_s: float, count: int) -> list[int]:
        provider.delay_s = delay_s
        checkpoints = CountingCheckpoints()
        act("coordinate", provider_context(checkpoints=checkpoints), accounts=accounts[:count])
        return checkpoints.done

    assert saved(0.0, 40) == [20]
    assert saved(0.55, 2) == [1], "each takes over a second, in two pages"


def test_an_account_that_fails_for_good_is_in_the_report_and_loses_no_other(
    act: Act, provider: FinanceProvider, accounts: list[str]
) -> None:
    provider.status_of = lambda account: 404 if account == accounts[3] else 200
    review = act("coordinate", accounts=accounts)["review"]
    assert review["accounts"][3] == {
        "account": accounts[3], "status": "failed", "reason": "the provider answered 404",
    }  # fmt: skip
    assert (review["accounts_reviewed"], review["overall"][0]["net"]) == (39, "234.00")


def test_an_account_with_a_passing_fault_is_tried_again_after_all_others(
    act: Act, provider: FinanceProvider, accounts: list[str]
) -> None:
    provider.status_of = lambda account: 500 if account == accounts[3] and provider.fetches[account] == 1 else 200
    review = act("coordinate", accounts=accounts)["review"]
    assert review["accounts_reviewed"] == 40
    assert [account["account"] for account in review["accounts"]] == accounts
    assert provider.fetches[accounts[3]] == 2


def test_an_account_whose_fault_stays_is_left_out_if_the_provider_answers_for_others(
    act: Act, provider: FinanceProvider, accounts: list[str]
) -> None:
    provider.status_of = lambda account: 500 if account in accounts[3:5] else 200
    review = act("coordinate", accounts=accounts[:8], provider_wait_s=10)["review"]
    assert [account["status"] for account in review["accounts"]].count("failed") == 2
    assert review["accounts_reviewed"] == 6


@pytest.mark.parametrize("status", [500, 503])
def test_a_provider_that_is_away_fails_the_attempt_and_the_next_one_goes_on(
    act: Act, provider: FinanceProvider, provider_context: Contexts, accounts: list[str], status: int
) -> None:
    checkpoints = InMemoryCheckpoints()
    provider.status_of = lambda _account: status if provider.fetches.total() > 38 else 200
    with pytest.raises(TransientError, match="the provider is away"):
        act("coordinate", provider_context(checkpoints=checkpoints), accounts=accounts, provider_wait_s=0)
    assert set(provider.fetches) >= set(accounts[:38])
    before = provider.fetches.copy()
    provider.status_of = lambda _account: 200
    review = act("coordinate", provider_context(checkpoints=checkpoints, attempt=2), accounts=accounts)["review"]
    assert review["accounts_reviewed"] == 40
    again = set(provider.fetches - before)
    assert set(accounts[38:]) <= again <= set(accounts[37:]), "by the last one that was reviewed it is known to be back"


@pytest.mark.parametrize("body", [b"<html>be back soon</html>", b"[]"])
def test_a_page_of_maintenance_is_waited_out_and_loses_no_account(
    act: Act, provider: FinanceProvider, accounts: list[str], body: bytes
) -> None:
    page = provider._page

    def page_or_maintenance(account: str, start: int) -> dict[str, Any]:
        provider.body = body if 9 < provider.fetches.total() < 13 else None
        return page(account, start)

    provider._page = page_or_maintenance  # type: ignore[method-assign]
    get = provider.get
    provider.get = lambda path, query: (get(path, query), page_or_maintenance("", 0))[0]  # type: ignore[method-assign]
    review = act("coordinate", accounts=accounts[:20])["review"]
    assert provider.fetches.total() > 20, "some accounts were fetched again, else this shows nothing"
    assert review["accounts_reviewed"] == 20


def test_an_account_whose_answers_are_odd_is_left_out(act: Act, provider: FinanceProvider, accounts: list[str]) -> None:
    get = provider.get
    odd = {"account": [accounts[2]]}
    provider.get = lambda path, query: (200, b"[]") if query == odd else get(path, query)  # type: ignore[method-assign]
    review = act("coordinate", accounts=accounts[:5])["review"]
    assert review["accounts"][2]["reason"] == (
        "the provider's answer to GET /transactions must be an object with a list 'transactions'"
    )
    assert review["accounts_reviewed"] == 4


def test_a_run_waits_for_a_provider_that_comes_back(act: Act, provider: FinanceProvider, accounts: list[str]) -> None:
    provider.status_of = lambda _account: 503 if 5 < provider.fetches.total() < 8 else 200
    review = act("coordinate", accounts=accounts[:10], provider_wait_s=10)["review"]
    assert review["accounts_reviewed"] == 10


def test_a_retry_of_the_run_tries_the_accounts_that_failed_again(
    act: Act, provider: FinanceProvider, provider_context: Contexts, accounts: list[str]
) -> None:
    checkpoints = InMemoryCheckpoints()
    provider.status_of = lambda account: 404 if account == accounts[0] else 503 if account == accounts[9] else 200
    with pytest.raises(TransientError):
        act("coordinate", provider_context(checkpoints=checkpoints), accounts=accounts[:10], provider_wait_s=0)
    provider.status_of = lambda _account: 200
    review = act("coordinate", provider_context(checkpoints=checkpoints), accounts=accounts[:10])["review"]
    assert [account["account"] for account in review["accounts"]] == accounts[:10]
    assert (review["accounts_reviewed"], review["overall"][0]["net"]) == (10, "60.00")
    assert provider.fetches == {account: 2 if account in (accounts[0], accounts[9]) else 1 for account in accounts[:10]}


def test_wrong_credentials_end_the_run_at_the_first_account(
    act: Act, provider: FinanceProvider, accounts: list[str]
) -> None:
    provider.status_of = lambda _account: 401
    with pytest.raises(PermanentError, match="401"):
        act("coordinate", accounts=accounts)
    assert provider.fetches.total() == 1


def test_a_run_of_which_no_account_can_be_read_fails(act: Act, provider: FinanceProvider) -> None:
    provider.status_of = lambda _account: 404
    with pytest.raises(PermanentError, match="no account could be reviewed; the first: the provider answered 404"):
        act("coordinate", accounts=["a", "b"])


def test_a_cancel_stops_between_two_accounts_and_keeps_what_is_done(
    act: Act, provider: FinanceProvider, provider_context: Contexts, accounts: list[str]
) -> None:
    cancel, checkpoints = threading.Event(), InMemoryCheckpoints()
    get = provider.get

    def get_and_cancel(path: str, query: Any) -> tuple[int, bytes]:
        if provider.fetches.total() == 5:
            cancel.set()
        return get(path, query)

    provider.get = get_and_cancel  # type: ignore[method-assign]
    with pytest.raises(Exception, match="asked to stop"):
        act("coordinate", provider_context(cancel=cancel, checkpoints=checkpoints), accounts=accounts)
    assert provider.fetches.total() <= 6
    assert (checkpoints.latest() or {})["next_index"] == 5
