"""Load scenarios of virtual users: submit, submit and poll until done, poll; all write into one :class:`LoadResult`."""

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
    """The result of one measurement: latencies in seconds, ids of accepted runs, status codes, number of polls."""

    latencies: list[float] = field(default_factory=list)
    ended_at: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    polls: int = 0

    def record_latency(self, started_at: float) -> None:
        """Record an operation that began at ``started_at`` and has ended now."""
        now = time.perf_counter()
        self.ended_at.append(now)
        self.latencies.append(now - started_at)


def submit_each(dialect: HttpDialect, load: LoadResult, turns: Iterator[int]) -> Scenario:
    """Submit once for each element of ``turns``, which all users share; a refused submit is counted and repeated."""
    request = dialect.submit()
    for _ in turns:
        while True:
            started_at = time.perf_counter()
            response = yield request
            if _record_submit(dialect, load, response):
                load.record_latency(started_at)
                break
            yield _RETRY_AFTER_S


def submit_and_poll(dialect: HttpDialect, load: LoadResult, until: float) -> Scenario:
    """Submit a run and poll it every 20 ms until it is done; repeat until the time ``until``."""
    request = dialect.submit()
    while (started_at := time.perf_counter()) < until:
        response = yield request
        if not _record_submit(dialect, load, response):
            yield _RETRY_AFTER_S
            continue
        poll = dialect.poll(load.ids[-1])
        while True:
            yield POLL_INTERVAL_S
            load.polls += 1
            response = yield poll
            if dialect.is_done(_require_body(response, _OK)):
                break
            if time.perf_counter() - started_at > _DONE_WITHIN_S:
                raise BenchmarkError(f"{dialect.name}: a run was not done within {_DONE_WITHIN_S:g} s")
        load.record_latency(started_at)


def poll_repeatedly(requests: Sequence[bytes], load: LoadResult, until: float, status: int) -> Scenario:
    """Send ``requests`` in turn until the time ``until``; each response must have the status ``status``."""
    while True:
        for request in requests:
            started_at = time.perf_counter()
            if started_at > until:
                return
            response = yield request
            _require_body(response, status)
            load.record_latency(started_at)


def check_results(dialect: HttpDialect, ids: Iterator[str]) -> Scenario:
    """Poll each of ``ids``, which all users share; raise BenchmarkError for a run without the right result."""
    for run_id in ids:
        response = yield dialect.poll(run_id)
        body = _require_body(response, _OK)
        if not dialect.has_expected_result(body):
            raise BenchmarkError(f"{dialect.name}: {run_id} ended with another result: {body[:600]!r}")


def send_once(request: bytes, take: Callable[[HttpResponse], None]) -> Scenario:
    """Send one request and pass the response to ``take``."""
    response = yield request
    if response is not None:
        take(response)


def _record_submit(dialect: HttpDialect, load: LoadResult, response: HttpResponse | None) -> bool:
    """Record the response to a submit; return True for 202, False for 503; raise BenchmarkError for any other."""
    if response is None or response.status not in {_ACCEPTED, _UNAVAILABLE}:
        raise BenchmarkError(f"{dialect.name}: the response to a submit was {response}")
    load.statuses[response.status] += 1
    if response.status == _UNAVAILABLE:
        return False
    run_id = dialect.run_id_of(response.body)
    if run_id is None:
        raise BenchmarkError(f"{dialect.name}: no id in {response.body[:200]!r}")
    load.ids.append(run_id)
    return True


def _require_body(response: HttpResponse | None, status: int) -> bytes:
    if response is None or response.status != status:
        raise BenchmarkError(f"expected status {status}, got {response}")
    return response.body
