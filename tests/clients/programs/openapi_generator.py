"""Plays with the client that openapi-generator makes: a run that completes, one that fails, a refused submit."""

from __future__ import annotations

import sys
import time
from uuid import uuid4

from bucket_client.exceptions import ApiException

from bucket_client import ApiClient, Configuration, PollsApi, Problem, RunBasket, SubmitApi

api = ApiClient(Configuration(host=sys.argv[1]))


def submit(basket_name, input_data):
    """Submit a run; its input is part of the typed body."""
    body = RunBasket(basket_name=basket_name, input_data=input_data, tags=["generated"])
    return SubmitApi(api).post_run_basket(body, idempotency_key=f"play-{uuid4()}")


def wait_for(accepted):
    """Poll until the run is done; an unchanged poll is an exception of this client."""
    etag = None
    while True:
        try:
            reply = PollsApi(api).get_execution_logs_execution_id_with_http_info(
                accepted.execution_id, wait=2, if_none_match=etag
            )
        except ApiException as error:
            if error.status != 304:
                raise
            time.sleep(int(error.headers["Retry-After"]))
            continue
        run, etag = reply.data.actual_instance, reply.headers["ETag"]
        if run.done:
            return run
        time.sleep(run.poll_after_ms / 1000)


income = {"transactions": [{"id": 1, "amount": 1000, "description": "Income"}]}
completed = wait_for(submit("working_test", income))
print(completed.status, completed.result["analysis"]["total"])
failed = wait_for(submit("simulate", {"script": ["failed:card_declined"]}))
print(failed.status, failed.error.error_code)
try:
    submit("no_such_basket", {})
except ApiException as error:
    print("refused", Problem.from_json(error.body).error_code)
