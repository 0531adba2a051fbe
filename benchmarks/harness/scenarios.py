"""What callers do: submit, submit and poll until done, poll; each a flow for the loop, all noting in one tally."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.harness.http_dialects import HttpDialect
from benchmarks.harness.load_generator import BenchmarkError, HttpResponse, Scenario

POLL_INTERVAL_S: Final = 0.02
_DONE_WITHIN_S: Final = 60.0
_RETRY_AFTER_S: Final = 0.05
_OK, _ACCEPTED, _NOT_MODIFIED, _UNAVAILABLE = 200, 202, 304, 503


@dataclass(slots=True)
class LoadResult:
    """What the callers of one measure saw; latencies in seconds, ``ids`` of the runs that were accepted."""

    latencies: list[float] = field(default_factory=list)
    ended_at: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    polls: int = 0

    def record_latency(self, began: float) -> None:
        """Note something that began at ``began`` and has ended now."""
        now = time.perf_counter()
        self.ended_at.append(now)
        self.latencies.append(now - began)


def submit_each(tongue: HttpDialect, tally: LoadResult, turns: Iterator[int]) -> Scenario:
    """Submit once for each of ``turns``, which all callers share; a refusal is noted and tried again."""
    request = tongue.submit()
    for _ in turns:
        while True:
            began = time.perf_counter()
            answer = yield request
            if _record_submit(tongue, tally, answer):
                tally.record_latency(began)
                break
            yield _RETRY_AFTER_S


def submit_and_poll(tongue: HttpDialect, tally: LoadResult, until: float) -> Scenario:
    """Submit a run and poll until it is done, each 20 ms, and again, until the moment ``until``."""
    request = tongue.submit()
    while (began := time.perf_counter()) < until:
        answer = yield request
        if not _record_submit(tongue, tally, answer):
            yield _RETRY_AFTER_S
            continue
        poll = tongue.poll(tally.ids[-1])
        while True:
            yield POLL_INTERVAL_S
            tally.polls += 1
            answer = yield poll
            if tongue.is_done(_require_body(answer, _OK)):
                break
            if time.perf_counter() - began > _DONE_WITHIN_S:
                raise BenchmarkError(f"{tongue.name}: a run was not done within {_DONE_WITHIN_S:g} s")
        tally.record_latency(began)


def poll_repeatedly(requests: Sequence[bytes], tally: LoadResult, until: float, status: int) -> Scenario:
    """Send ``requests`` in turn until the moment ``until``; each must be answered with ``status``."""
    while True:
        for request in requests:
            began = time.perf_counter()
            if began > until:
                return
            answer = yield request
            _require_body(answer, status)
            tally.record_latency(began)


def check_results(tongue: HttpDialect, ids: Iterator[str]) -> Scenario:
    """Poll each of ``ids``, which all callers share; raises Broken for a run that has not the right result."""
    for run_id in ids:
        answer = yield tongue.poll(run_id)
        body = _require_body(answer, _OK)
        if not tongue.is_right(body):
            raise BenchmarkError(f"{tongue.name}: {run_id} ended with another result: {body[:600]!r}")


def send_once(request: bytes, take: Callable[[HttpResponse], None]) -> Scenario:
    """Send one request and hand the answer on."""
    answer = yield request
    if answer is not None:
        take(answer)


def _record_submit(tongue: HttpDialect, tally: LoadResult, answer: HttpResponse | None) -> bool:
    """Note a submit's answer: True for 202, False for a 503; raises Broken for any other."""
    if answer is None or answer.status not in {_ACCEPTED, _UNAVAILABLE}:
        raise BenchmarkError(f"{tongue.name}: a submit was answered {answer}")
    tally.statuses[answer.status] += 1
    if answer.status == _UNAVAILABLE:
        return False
    run_id = tongue.run_id_of(answer.body)
    if run_id is None:
        raise BenchmarkError(f"{tongue.name}: no id in {answer.body[:200]!r}")
    tally.ids.append(run_id)
    return True


def _require_body(answer: HttpResponse | None, status: int) -> bytes:
    if answer is None or answer.status != status:
        raise BenchmarkError(f"{status} was expected, and the answer was {answer}")
    return answer.body
