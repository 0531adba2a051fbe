"""Existing programs of integrators: they work unchanged except for the address."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
import requests

from tests.acceptance.client import ApiClient

POST_AND_POLL = """
import sys, time, requests
base = sys.argv[1]
response = requests.post(f"{base}/run-basket", json={"basket_name": "finance_daily_check"})
execution_id = response.json().get("execution_metadata", {}).get("execution_id")
while True:
    status = requests.get(f"{base}/execution-logs/{execution_id}").json()
    if status.get("status") == "completed":
        break
    time.sleep(1)
print(status["result"])
"""


def test_a_program_that_posts_and_polls_each_second_ends_within_ten(caller: ApiClient) -> None:
    began = time.monotonic()
    program = subprocess.run(
        [sys.executable, "-c", POST_AND_POLL, caller.stack.url], capture_output=True, text=True, timeout=20, check=False
    )
    assert (program.returncode, program.stdout) == (0, "{'recommendations': ['Increase savings']}\n"), program.stderr
    assert time.monotonic() - began < 10


class RetryingCaller:
    """A usual caller: timeout=30, raise_for_status() and 2 ** attempt seconds between attempts (hundredths here)."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def run_basket(self, base: str, body: dict[str, Any], max_retries: int = 3) -> dict[str, Any]:
        for attempt in range(max_retries):
            try:
                response = requests.post(f"{base}/run-basket", json=body, timeout=30)
                self.seen.append(response.status_code)
                response.raise_for_status()
                body_received: dict[str, Any] = response.json()
            except requests.exceptions.RequestException:
                if attempt == max_retries - 1:
                    raise
                time.sleep(2**attempt / 100)
            else:
                return body_received
        raise AssertionError("not reached")


def test_a_caller_that_retries_works_unchanged(caller: ApiClient) -> None:
    integrator = RetryingCaller()
    response = integrator.run_basket(
        caller.stack.url, {"basket_name": "working_test", "input_data": {"transactions": []}}
    )
    assert integrator.seen == [202]
    assert caller.wait_done(response["execution_id"])["result"]["analysis"] == {
        "total": 0,
        "positive": 0,
        "negative": 0,
    }


def test_a_caller_that_retries_sees_404_three_times_for_an_unknown_basket(caller: ApiClient) -> None:
    integrator = RetryingCaller()
    with pytest.raises(requests.exceptions.HTTPError, match="404"):
        integrator.run_basket(caller.stack.url, {"basket_name": "nobody"})
    assert integrator.seen == [404, 404, 404]


def test_the_curl_of_the_readme_returns_what_the_readme_says(caller: ApiClient) -> None:
    income = '{"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]}'
    body = f'{{"basket_name": "working_test", "input_data": {income}}}'
    accepted = caller.post_raw(body.encode())
    assert accepted.status_code == 202
    done = caller.wait_done(accepted.json()["execution_id"])
    assert done["status"] == "completed"
    assert json.dumps(done["result"]["analysis"]) == '{"total": 1000, "positive": 1000, "negative": 0}'
