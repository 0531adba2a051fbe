"""Errors can be copied, sent between processes and shown; dates of proxies are read."""

from __future__ import annotations

import copy
import pickle

import pytest

from bucket_client import Execution, errors
from bucket_client.effects import Reply
from tests.unit.client.flow_player import reply

FAILED = Execution.from_json(
    {"execution_id": "a", "status": "failed", "done": True, "rev": 2, "error": {"error_code": "x", "message": "m"}}
)
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BucketError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_a_copy_and_another_process(kind: type[errors.BucketError]) -> None:
    error = kind(FAILED) if issubclass(kind, errors.ExecutionFailed) else kind("message", status=404, error_code="c")
    error.idempotency_key = "k"
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 -- our own
        assert (type(twin), str(twin), twin.status, twin.error_code) == (
            kind,
            str(error),
            error.status,
            error.error_code,
        )


@pytest.mark.parametrize("details", [5, "text", ["x pointer"], None, [{"pointer": 3}]])
def test_a_problem_with_odd_details_is_an_error_like_others(details: object) -> None:
    error = errors.error_of(reply(400, {"detail": "no", "details": details}))
    assert isinstance(error, errors.Invalid)
    assert error.pointers in ([], ["3"])


def test_a_date_as_retry_after_is_compared_with_that_of_the_reply() -> None:
    headers = {"retry-after": "Tue, 01 Dec 2026 10:00:30 GMT", "date": "Tue, 01 Dec 2026 10:00:00 GMT"}
    assert Reply(503, headers, b"").retry_after_s == 30
    assert Reply(503, {"retry-after": headers["retry-after"]}, b"").retry_after_s is None
    assert Reply(503, {"retry-after": "soon", "date": headers["date"]}, b"").retry_after_s is None
