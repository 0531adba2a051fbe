"""Self-test of the stack: submits a run, polls it, and checks that it completes with the right result."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from compose.embedded.bucket_process_plans import fetch_json
from compose.operator_error import OperatorError

EXAMPLE: Final[dict[str, Any]] = {
    "basket_name": "working_test",
    "input_data": {"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]},
}
_EXPECTED_ANALYSIS: Final = {"total": 1000, "positive": 1000, "negative": 0}
_RUN_TIMEOUT_S: Final = 30.0
_POLL_INTERVAL_MAX_S: Final = 0.5
_SUBMIT_RETRY_AFTER_S: Final = 0.1


def run_selftest(url: str, logs: Path, on_poll: Callable[[], None]) -> float:
    """Run the example basket at ``url``, calling ``on_poll`` between polls, and return how many seconds it took.

    Raises OperatorError, with the actual result, if it does not complete with the right result.
    """
    began = time.monotonic()
    fix = f"read {logs / 'api.log'} and {logs / 'worker.log'}"
    try:
        accepted = _submit(f"{url}/run-basket", began + _RUN_TIMEOUT_S, on_poll)
        poll = _poll(f"{url}{accepted['status_url']}", began + _RUN_TIMEOUT_S, on_poll)
    except (OSError, ValueError, LookupError) as error:
        raise OperatorError(f"the self-test run could not be made: {error}", fix=fix) from error
    result = poll.get("result")
    analysis = result.get("analysis") if isinstance(result, dict) else None
    if poll.get("status") != "completed" or analysis != _EXPECTED_ANALYSIS:
        raise OperatorError(f"the self-test run is {poll.get('status')}, with {poll.get('error') or result}", fix=fix)
    return time.monotonic() - began


def _submit(submit_url: str, due_by: float, on_poll: Callable[[], None]) -> dict[str, Any]:
    # One process of the API is ready; another may connect to the servers a moment later and return 503: send again.
    while True:
        try:
            return fetch_json(submit_url, {**EXAMPLE, "tags": ["self-test"]})
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > due_by:
                raise
            error.close()
        on_poll()
        time.sleep(_SUBMIT_RETRY_AFTER_S)


def _poll(status_url: str, due_by: float, on_poll: Callable[[], None]) -> dict[str, Any]:
    # Returns the last poll: the run is done, or its time is over.
    while True:
        poll = fetch_json(status_url)
        if poll["done"] or time.monotonic() > due_by:
            return poll
        on_poll()
        time.sleep(min(_POLL_INTERVAL_MAX_S, poll.get("poll_after_ms", 250) / 1000))
