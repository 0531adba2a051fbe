"""Proves that the stack works by the one thing it is for: a run that is posted, polled and completed."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from compose.embedded.bucket_processes import fetch_json
from compose.errors import OperatorError

EXAMPLE: Final[dict[str, Any]] = {
    "basket_name": "working_test",
    "input_data": {"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]},
}
_EXPECTED_ANALYSIS: Final = {"total": 1000, "positive": 1000, "negative": 0}
_RUN_TIMEOUT_S: Final = 30.0
_POLL_INTERVAL_MAX_S: Final = 0.5
_SUBMIT_RETRY_AFTER_S: Final = 0.1


def run_selftest(url: str, logs: Path, on_poll: Callable[[], None]) -> float:
    """Run the example basket at ``url``, calling ``between`` polls, and answer how many seconds it took.

    Raises Trouble, with what came instead, where it does not complete with the right result.
    """
    began = time.monotonic()
    read = f"read {logs / 'api.log'} and {logs / 'worker.log'}"
    try:
        accepted = _submit(f"{url}/run-basket", began + _RUN_TIMEOUT_S, on_poll)
        poll = _poll(f"{url}{accepted['status_url']}", began + _RUN_TIMEOUT_S, on_poll)
    except (OSError, ValueError, LookupError) as failed:
        raise OperatorError(f"the self-test run could not be made: {failed}", fix=read) from failed
    result = poll.get("result")
    if (
        poll.get("status") != "completed"
        or not isinstance(result, dict)
        or result.get("analysis") != _EXPECTED_ANALYSIS
    ):
        raise OperatorError(f"the self-test run is {poll.get('status')}, with {poll.get('error') or result}", fix=read)
    return time.monotonic() - began


def _submit(submit_url: str, due_by: float, between: Callable[[], None]) -> dict[str, Any]:
    # One process of the API was ready; another may see the servers a moment later, and says 503: send it again.
    while True:
        try:
            accepted: dict[str, Any] = fetch_json(submit_url, {**EXAMPLE, "tags": ["self-test"]})
        except urllib.error.HTTPError as refused:
            if refused.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > due_by:
                raise
            refused.close()
        else:
            return accepted
        between()
        time.sleep(_SUBMIT_RETRY_AFTER_S)


def _poll(status_url: str, due_by: float, between: Callable[[], None]) -> dict[str, Any]:
    # Answers the last poll: of a run that is done, or of one that has had its time.
    while True:
        poll: dict[str, Any] = fetch_json(status_url)
        if poll["done"] or time.monotonic() > due_by:
            return poll
        between()
        time.sleep(min(_POLL_INTERVAL_MAX_S, poll.get("poll_after_ms", 250) / 1000))
