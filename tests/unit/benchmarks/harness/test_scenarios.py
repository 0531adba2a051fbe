"""A caller of a held submit takes only a final and right result, and polls if it was not held."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.harness.http_dialects import BUCKET, EXPECTED_RESULT
from benchmarks.harness.load_generator import BenchmarkError, HttpResponse, Scenario
from benchmarks.harness.scenarios import LoadResult, submit_and_hold


def response(code: int, **fields: object) -> HttpResponse:
    return HttpResponse(code, b"", json.dumps({"execution_id": "one"} | fields, separators=(",", ":")).encode())


RIGHT = response(200, status="completed", done=True, result=EXPECTED_RESULT)
SUBMIT = BUCKET.submit(wait_s=10)
UNHELD = response(202, status="queued", done=False)


def a_caller(load: LoadResult) -> Scenario:
    """Return a caller that has sent its first submit."""
    caller = submit_and_hold(BUCKET, load, until=math.inf)
    assert next(caller) == SUBMIT
    return caller


def test_the_submit_asks_to_be_held() -> None:
    assert b"\r\nPrefer: wait=10\r\n" in SUBMIT
    assert b"Prefer" not in BUCKET.submit()


def test_a_right_result_in_the_first_response_is_one_run_without_a_poll() -> None:
    load = LoadResult()
    assert a_caller(load).send(RIGHT) == SUBMIT
    assert (load.ids, len(load.latencies), load.polls) == (["one"], 1, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        response(200, status="completed", done=True, result={"recommendations": []}),
        response(200, status="failed", done=True, error={}),
        response(200, status="running", done=False, result=EXPECTED_RESULT),
        response(200, status="completed", done=False, result=EXPECTED_RESULT),
    ],
    ids=["another result", "failed", "not final", "not done"],
)
def test_any_other_result_ends_the_benchmark(wrong: HttpResponse) -> None:
    with pytest.raises(BenchmarkError, match="another result"):
        a_caller(LoadResult()).send(wrong)


def test_a_submit_that_was_not_held_is_polled_until_it_is_done() -> None:
    load = LoadResult()
    caller = a_caller(load)
    assert isinstance(caller.send(UNHELD), float)
    assert caller.send(None) == BUCKET.poll("one")
    assert not load.latencies
    assert caller.send(RIGHT) == SUBMIT
    assert (load.ids, len(load.latencies), load.polls) == (["one"], 1, 1)
