"""Builds sample executions without a running stack: one just accepted, and finished ones as the engine leaves them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

import orjson
from bson import Timestamp
from pymongo import WriteConcern
from pymongo.collection import Collection

from benchmarks.harness.http_dialects import EXPECTED_RESULT, TRANSACTIONS
from shared.domain.definitions.basket import SEQUENTIAL, Basket, BasketStep
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, Idempotency, LogEvent
from shared.domain.lifecycle.transitions import Decision, StepOutput, Timings, claim, complete, start
from shared.domain.status import ExecutionStatus
from shared.ids import new_execution_id, new_request_id, new_token
from shared.store.executions.documents import encode_event, encode_execution

_OUTPUTS: Final = {
    "cashflow_analyzer": orjson.dumps({"analysis": {"total": 700, "positive": 1000, "negative": -300}}),
    "goal_recommender": orjson.dumps(EXPECTED_RESULT),
}
_STEP_GAP: Final = timedelta(milliseconds=40)
_BATCH: Final = 1_000


def accept_run(now: datetime, terms: Timings, *steps: str, key: str | None = None) -> Decision:
    """Build the decision that accepts, at ``now``, a run of a chain of ``steps``."""
    chain = [BasketStep(step, step, steps[index - 1 : index] if index else ()) for index, step in enumerate(steps)]
    blank = Execution(
        id=new_execution_id(now),
        integrator=PUBLIC_INTEGRATOR,
        basket=Basket("chained_test", SEQUENTIAL, tuple(chain), "Analyses transactions, then recommends."),
        status=ExecutionStatus.QUEUED,
        steps={},
        created_at=now,
        request_id=new_request_id(),
        input=orjson.dumps({"transactions": TRANSACTIONS}),
        tags=("nightly", "account-4711"),
        metadata=orjson.dumps({"tenant": "acme", "batch": 17}),
        idempotency=None if key is None else Idempotency(key, "0" * 64),
    )
    return start(blank, now, terms)


def insert_finished(executions: Collection[Any], total: int, now: datetime, terms: Timings) -> None:
    """Insert ``total`` finished executions, one for each second before ``now``; it waits for no majority."""
    quick = executions.with_options(write_concern=WriteConcern(w=1))
    documents = _finished(total, now, terms)
    while batch := list(islice(documents, _BATCH)):
        quick.insert_many(batch, ordered=False)


def _finished(total: int, now: datetime, terms: Timings) -> Iterator[dict[str, Any]]:
    pattern, events = _one_finished(now, terms)
    lines = [encode_event(event) for event in events]
    for age_s in range(total, 0, -1):
        at = now - timedelta(seconds=age_s)
        execution = replace(
            pattern,
            id=new_execution_id(at),
            request_id=new_request_id(),
            created_at=at,
            queued_at=at,
            started_at=at + _STEP_GAP,
            finished_at=at + 3 * _STEP_GAP,
        )
        yield {
            **encode_execution(execution),
            "events": lines,
            "lines": len(lines),
            "outputs": _OUTPUTS,
            "updated_at": at + 3 * _STEP_GAP,
            "stored_at": Timestamp(0, 0),
        }


def _one_finished(now: datetime, terms: Timings) -> tuple[Execution, list[LogEvent]]:
    """Build a completed chain of two steps, with its log lines and those of its agents."""
    decision = accept_run(now, terms, *_OUTPUTS)
    events = list(decision.events)
    for moment, (step, output) in enumerate(_OUTPUTS.items(), 1):
        at = now + moment * _STEP_GAP
        claimed = claim(decision.execution, step, new_token(), at, terms)
        if claimed is None:
            raise RuntimeError(f"{step} could not be claimed")
        log_line = LogEvent(at, "agent.log", "looked at it", agent=step, step=step, data=output)
        lease = claimed.execution.lease_of(step)
        decision = complete(claimed.execution, lease, StepOutput(step, output), at + _STEP_GAP, terms)
        events += [*claimed.events, log_line, *decision.events]
    return decision.execution, events
