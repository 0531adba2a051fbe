"""A transient failure may say how long the next attempt must wait at least."""

from __future__ import annotations

import math
from typing import Any

import pytest

from shared.domain.status import StepStatus
from tests.integration.worker.conftest import WorkerHarness
from worker.agent_errors import PermanentError, TransientError
from worker.gateway.gateway_errors import gateway_error
from worker.steps.outcome_checks import wait_asked_by


class WithoutInit(TransientError):
    """An author's own error."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("raised", "wait_s"),
    [
        (TransientError("x"), 0),
        (TransientError("x", wait_s=7), 7),
        (TransientError("x", wait_s=math.nan), 0),
        (TransientError("x", wait_s=math.inf), 0),
        (TransientError("x", wait_s=-1), 0),
        (TransientError("x", wait_s="soon"), 0),  # type: ignore[arg-type]
        (TransientError("x", wait_s=1e300), 604_800),
        (WithoutInit(), 0),
        (PermanentError("x"), 0),
        (gateway_error("rate_limited", "x", retry_after_s=40), 40),
        (gateway_error("rate_limited", "x"), 0),
        (gateway_error("circuit_open", "x", retry_after_s=40), 0),
        (gateway_error("client_error", "x", retry_after_s=40), 0),
    ],
)
def test_the_wait_is_a_number_of_seconds_that_a_transient_error_names(raised: BaseException, wait_s: float) -> None:
    assert wait_asked_by(raised) == wait_s


@pytest.mark.parametrize(("wait_s", "status"), [(40, StepStatus.READY), (61, StepStatus.FAILED)])
def test_the_next_attempt_waits_as_the_failure_says_or_there_is_none(
    bench: WorkerHarness, wait_s: float, status: StepStatus
) -> None:
    def agent(*_: Any) -> Any:
        raise TransientError("429", wait_s=wait_s)

    run = bench.accept("echo")
    bench.runner(echo=agent).run_message(bench.message_of(run))
    record = bench.read(run)
    step = record.execution.steps["s1"]
    assert step.status is status
    if status is StepStatus.READY:
        assert 40_000 <= step.waited_ms <= 41_000
        assert "is tried again in 40" in record.events[-1].message
