"""Plays with the client that openapi-python-client makes: a run that completes, one that fails, a refused submit."""

from __future__ import annotations

import sys
import time
from uuid import uuid4

from bucket_client.api.polls import get_execution_logs_execution_id as poll
from bucket_client.api.submit import post_run_basket
from bucket_client.models import Accepted, Execution, Problem, RunBasket, RunBasketInputDataType0
from bucket_client.types import Unset

from bucket_client import Client

client = Client(base_url=sys.argv[1])


def submit(basket_name: str, input_data: dict[str, object]) -> Accepted | Problem:
    """Submit a run; its input is part of the typed body."""
    typed_input = RunBasketInputDataType0.from_dict(input_data)
    body = RunBasket(basket_name=basket_name, input_data=typed_input, tags=["generated"])
    reply = post_run_basket.sync(client=client, body=body, idempotency_key=f"play-{uuid4()}")
    if not isinstance(reply, Accepted | Problem):
        raise TypeError(f"not a 202 and no problem: {reply!r}")
    return reply


def wait_for(accepted: Accepted | Problem) -> Execution:
    """Poll until the run is done; a poll that is held or unchanged is no error."""
    if isinstance(accepted, Problem):
        raise TypeError(accepted.detail)
    etag: str | Unset = Unset()
    while True:
        reply = poll.sync_detailed(accepted.execution_id, client=client, wait=2, if_none_match=etag)
        if reply.status_code == 304:
            time.sleep(int(reply.headers["Retry-After"]))
            continue
        if not isinstance(reply.parsed, Execution):
            raise TypeError(f"not an execution: {reply}")
        if reply.parsed.done:
            return reply.parsed
        etag = reply.headers["ETag"]
        time.sleep(0 if isinstance(reply.parsed.poll_after_ms, Unset) else reply.parsed.poll_after_ms / 1000)


income = {"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]}
completed = wait_for(submit("working_test", dict(income)))
if completed.result is None:
    raise TypeError("a completed run has a result")
print(completed.status.value, completed.result["analysis"]["total"])
failed = wait_for(submit("simulate", {"script": ["failed:card_declined"]}))
if failed.error is None:
    raise TypeError("a failed run has an error")
print(failed.status.value, failed.error.error_code)
refused = submit("no_such_basket", {})
if isinstance(refused, Accepted):
    raise TypeError("an unknown basket was accepted")
print("refused", refused.error_code)
