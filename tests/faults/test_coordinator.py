"""A long coordinate run at a provider: the loss of its worker, a failure for good and a cancel cost almost nothing.

By default 60 accounts at 50 ms, to be quick. ``FULL_COORDINATOR=1`` makes it 200 accounts at 200 ms, which takes two
minutes: ``FULL_COORDINATOR=1 .venv/bin/pytest -q tests/faults/test_coordinator.py``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.api_client import ApiResponse, RunClient, send_timed
from tests.finance_provider import FinanceProvider, serve
from tests.stack import Stack
from tests.waiting import wait_until

IS_FULL = bool(os.environ.get("FULL_COORDINATOR"))
COUNT = 200 if IS_FULL else 60
DELAY_S = 0.2 if IS_FULL else 0.05
WITHIN_S = COUNT * DELAY_S * 3 + 30
ADDITIONS = 4
FETCHED_AGAIN_MAX = 21
"""What is between two checkpoints, and the account that was being fetched."""


def filled_accounts() -> dict[str, list[dict[str, Any]]]:
    """Return accounts of one income of 10.10 and one expense of 4.00 each."""
    return {
        f"account-{number:03}": [
            {"id": f"{number}-in", "amount": "10.10", "currency": "EUR", "date": "2026-01-31"},
            {"id": f"{number}-out", "amount": "(4,00)", "currency": "EUR", "date": "2026-02-01"},
        ]
        for number in range(COUNT)
    }


@pytest.fixture(scope="module")
def served() -> Iterator[FinanceProvider]:
    with serve(FinanceProvider({})) as provider:
        yield provider


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], served: FinanceProvider) -> Stack:
    return make_stack(FINANCIAL_COORDINATOR_API_URL=served.url)


@pytest.fixture
def provider(served: FinanceProvider) -> FinanceProvider:
    """Return the stack's provider as if it were new."""
    fresh = FinanceProvider(filled_accounts(), delay_s=DELAY_S)
    fresh.url = served.url
    served.__dict__.update(vars(fresh))
    return served


def act(stack: Stack, action: str, **given: Any) -> ApiResponse:
    body = {"agent_name": "financial_coordinator", "input_data": {"action": action, **given}}
    return send_timed(lambda: requests.post(f"{stack.url}/run-agent", json=body, timeout=10))


def coordinate(stack: Stack, provider: FinanceProvider, **given: Any) -> str:
    """Begin a run over all accounts; return its id."""
    return act(stack, "coordinate", accounts=list(provider.transactions), **given).execution_id


def wait_fetched(provider: FinanceProvider, count: int) -> None:
    wait_until(lambda: provider.fetches.total() >= count, WITHIN_S, f"{count} accounts were fetched")


def retry(stack: Stack, run: str) -> str:
    return send_timed(lambda: requests.post(f"{stack.url}/executions/{run}/retry", timeout=10)).execution_id


def fetches_of_accounts(provider: FinanceProvider) -> Counter[str]:
    """Return how often each account was fetched, without the lists of all that follow an addition."""
    return Counter({account: count for account, count in provider.fetches.items() if account})


def close_circuits(stack: Stack) -> None:
    """Forget the failures of the provider, whose circuit would stay open for up to a minute."""
    client = stack.redis()
    for key in client.scan_iter("provider*"):
        client.delete(key)


def check_review(poll: dict[str, Any], provider: FinanceProvider) -> None:
    """Check that a run completed with all accounts, each once in the sums, and fetched at most twice."""
    assert poll["status"] == "completed", poll
    review = poll["result"]["review"]
    assert (review["accounts_reviewed"], review["accounts_failed"]) == (COUNT, 0)
    assert [account["account"] for account in review["accounts"]] == sorted(filled_accounts())
    [euros] = review["overall"]
    assert euros["income"] == f"{COUNT * 10 + COUNT / 10:.2f}"
    assert euros["expenses"] == f"{-COUNT * 4}.00"
    fetches = fetches_of_accounts(provider)
    assert set(fetches) == set(filled_accounts())
    assert max(fetches.values()) <= 2
    assert fetches.total() <= COUNT + FETCHED_AGAIN_MAX


def test_a_worker_that_is_killed_at_half_costs_no_account_a_third_fetch_and_no_transaction_a_second_one(
    stack: Stack, runs: RunClient, provider: FinanceProvider
) -> None:
    run = coordinate(stack, provider)
    percents: list[int] = []

    def watch(until: int) -> bool:
        percents.append(runs.poll(run).body["progress"]["percent"])
        return percents[-1] >= until

    wait_until(lambda: watch(45), WITHIN_S, "45 % are done")
    additions = [
        act(stack, "add_transaction", transaction={"amount": -1, "account": "added"}).execution_id
        for _ in range(ADDITIONS)
    ]
    wait_until(lambda: provider.posts, WITHIN_S, "one was sent")
    stack.kill("worker")
    fetched = fetches_of_accounts(provider).total()
    assert COUNT * 0.4 < fetched < COUNT * 0.9, "it was killed at about half, else this shows nothing"
    stack.start("worker")

    wait_until(lambda: watch(100) or runs.poll(run).body["done"], WITHIN_S, "the run is done")
    check_review(runs.wait_done(run, WITHIN_S), provider)
    assert percents == sorted(percents)
    assert len(set(percents)) >= 5, f"the progress, which is stored each second, rises: {sorted(set(percents))}"
    polls = runs.wait_all_done(additions, WITHIN_S)
    assert [poll["status"] for poll in polls] == ["completed"] * ADDITIONS
    assert len(provider.posts) == len(provider.transactions["added"]) == ADDITIONS


def test_a_run_that_failed_for_good_at_95_percent_goes_on_from_there_when_it_is_retried(
    stack: Stack, runs: RunClient, provider: FinanceProvider
) -> None:
    last = sorted(provider.transactions)[int(COUNT * 0.95) :]
    provider.status_of = lambda account: 401 if account in last else 200
    run = coordinate(stack, provider)
    failed = runs.wait_done(run, WITHIN_S)
    assert failed["status"] == "failed"
    assert "401" in failed["error"]["message"]
    before = provider.fetches.copy()
    assert len(before) == int(COUNT * 0.95) + 1
    provider.status_of = lambda _account: 200

    check_review(runs.wait_done(retry(stack, run), WITHIN_S), provider)
    assert set(provider.fetches - before) == set(last), "what was done is not fetched again"


def test_a_run_whose_provider_went_away_for_good_goes_on_when_it_is_back_and_the_run_is_retried(
    stack: Stack, runs: RunClient, provider: FinanceProvider
) -> None:
    half = sorted(provider.transactions)[COUNT // 2 :]
    provider.status_of = lambda account: 503 if account in half else 200
    run = coordinate(stack, provider, provider_wait_s=1)
    wait_until(lambda: provider.fetches[half[0]], WITHIN_S, "the provider is away")
    provider.status_of = lambda _account: 503
    failed = runs.wait_done(run, WITHIN_S + 60)
    assert (failed["status"], failed["error"]["retryable"]) == ("failed", True)
    assert "the provider is away" in failed["error"]["message"]
    before = fetches_of_accounts(provider)
    assert set(before) == {*sorted(provider.transactions)[: COUNT // 2], half[0]}
    assert before[half[0]] < 20, "an open circuit spares the provider"
    provider.status_of = lambda _account: 200
    close_circuits(stack)

    poll = runs.wait_done(retry(stack, run), WITHIN_S + 60)
    assert (poll["status"], poll["result"]["review"]["accounts_reviewed"]) == ("completed", COUNT)
    assert set(fetches_of_accounts(provider) - before) == set(half)


def test_an_account_that_always_fails_is_reported_although_it_opens_the_providers_circuit(
    stack: Stack, runs: RunClient, provider: FinanceProvider
) -> None:
    bad = sorted(provider.transactions)[3]
    provider.status_of = lambda account: 500 if account == bad else 200
    poll = runs.wait_done(coordinate(stack, provider), WITHIN_S + 60)
    assert poll["status"] == "completed", poll
    review = poll["result"]["review"]
    assert (review["accounts_reviewed"], review["accounts_failed"]) == (COUNT - 1, 1)
    assert "500" in review["accounts"][3]["reason"]
    close_circuits(stack)


def test_a_cancelled_run_stops_between_two_accounts_and_a_retry_goes_on(
    stack: Stack, runs: RunClient, provider: FinanceProvider
) -> None:
    run = coordinate(stack, provider)
    wait_fetched(provider, COUNT // 4)
    assert requests.post(f"{stack.url}/executions/{run}/cancel", timeout=10).status_code in {200, 202}
    assert runs.wait_done(run, 5)["status"] == "cancelled"
    before = provider.fetches.copy()
    assert before.total() < COUNT * 0.75

    check_review(runs.wait_done(retry(stack, run), WITHIN_S), provider)
    assert sum((provider.fetches & before).values()) <= before.total() + 2
