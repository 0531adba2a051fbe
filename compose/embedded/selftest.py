"""Self-test of the stack: submits a run, polls it, and checks that it completes with the right result."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson

from compose.embedded.bucket_process_plans import fetch_json
from compose.operator_error import OperatorError

EXAMPLE: Final[dict[str, Any]] = {
    "basket_name": "working_test",
    "input_data": {"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]},
}
# Its basket comes with the run, because people may delete any stored one.
_SELF_TEST: Final[dict[str, Any]] = {
    "config": {"agents": ["cashflow_analyzer"]},
    "input_data": EXAMPLE["input_data"],
    "tags": ["self-test"],
}
_EXPECTED_ANALYSIS: Final = {"total": 1000, "positive": 1000, "negative": 0}
_RUN_TIMEOUT_S: Final = 30.0
_START_TIMEOUT_S: Final = 5.0
_POLL_INTERVAL_MAX_S: Final = 0.5
_SUBMIT_RETRY_AFTER_S: Final = 0.1

# By the operator's own settings: quotas, limits, or that only approved integrations may submit.
_REFUSALS: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})

_Fetch = Callable[..., dict[str, Any]]


class _NotTaken(Exception):
    """The API takes no run, for the reason that this says."""


def run_selftest(url: str, logs: Path, on_poll: Callable[[], None], *, key: str | None = None) -> str:
    """Run a small basket at ``url``, calling ``on_poll`` between polls, and return one sentence about it.

    ``key`` is the API key to send, if any.

    A stack that is busy with earlier runs, or refuses this one by its settings, is no fault: the sentence says so, and
    a run is cancelled. Raises OperatorError, with the actual result, if the run ends otherwise than it must.
    """
    began, fetch = time.monotonic(), partial(fetch_json, key=key)
    fix = f"read {logs / 'api.log'} and {logs / 'worker.log'}"
    try:
        accepted = _submit(fetch, f"{url}/run-basket", began + _START_TIMEOUT_S, on_poll)
        poll = _poll(fetch, f"{url}{accepted['status_url']}", began, on_poll)
        if not poll["done"]:
            fetch(f"{url}/executions/{poll['execution_id']}/cancel", {})
            waited = f"was still {poll['status']} after {time.monotonic() - began:.0f} s and was cancelled"
            return f"The self-test run {waited}: the workers are busy with earlier runs. If there are none, {fix}."
    except _NotTaken as reason:
        return f"No self-test was made: {reason}."
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OperatorError(f"the self-test run could not be made: {error}", fix=fix) from error
    result = poll.get("result")
    analysis = result.get("analysis") if isinstance(result, dict) else None
    if poll.get("status") != "completed" or analysis != _EXPECTED_ANALYSIS:
        raise OperatorError(f"the self-test run is {poll.get('status')}, with {poll.get('error') or result}", fix=fix)
    return f"A first run completed in {time.monotonic() - began:.1f} s."


def _submit(fetch: _Fetch, submit_url: str, due_by: float, on_poll: Callable[[], None]) -> dict[str, Any]:
    """Submit the run; raises _NotTaken if it is refused, or if the API answers 503 for too long (a full queue)."""
    while True:
        try:
            return fetch(submit_url, _SELF_TEST)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _REFUSALS:
                    raise _NotTaken(orjson.loads(error.read())["detail"]) from error
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        if time.monotonic() > due_by:
            raise _NotTaken("the API takes no new run now (503); its log api.log may say why")
        on_poll()
        time.sleep(_SUBMIT_RETRY_AFTER_S)


def _poll(fetch: _Fetch, status_url: str, began: float, on_poll: Callable[[], None]) -> dict[str, Any]:
    """Poll until the run is done, has not started soon, or has lasted too long; return the last poll.

    A poll that is refused by a limit is made again.
    """
    while True:
        try:
            poll = fetch(status_url)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != HTTPStatus.TOO_MANY_REQUESTS or time.monotonic() - began > _RUN_TIMEOUT_S:
                raise
            on_poll()
            time.sleep(_POLL_INTERVAL_MAX_S)
            continue
        waited_s = time.monotonic() - began
        if poll["done"] or waited_s > (_START_TIMEOUT_S if poll["status"] == "queued" else _RUN_TIMEOUT_S):
            return poll
        on_poll()
        time.sleep(min(_POLL_INTERVAL_MAX_S, poll.get("poll_after_ms", 250) / 1000))
