"""Load scenarios of virtual users: submit, submit and wait for the end, poll; each fills a :class:`LoadResult`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.harness.http_dialects import HttpDialect
from benchmarks.harness.load_generator import BenchmarkError, HttpResponse, Scenario

POLL_INTERVAL_S: Final = 0.02
_HOLD_S: Final = 10
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


def submit_and_poll(
    dialect: HttpDialect, load: LoadResult, until: float, interval_s: float = POLL_INTERVAL_S
) -> Scenario:
    """Submit a run and poll it each ``interval_s`` until it is done; repeat until the time ``until``."""
    request = dialect.submit()
    while (started_at := time.perf_counter()) < until:
        response = yield request
        if not _record_submit(dialect, load, response):
            yield _RETRY_AFTER_S
            continue
        yield from _poll_until_done(dialect, load, started_at, interval_s)
        load.record_latency(started_at)


def submit_and_hold(dialect: HttpDialect, load: LoadResult, until: float) -> Scenario:
    """Submit a run with ``Prefer: wait`` and check the final result in the response; repeat until the time ``until``.

    If the submit is not held, the response is a 202, and the run is polled as by :func:`submit_and_poll`.
    """
    request = dialect.submit(_HOLD_S)
    while (started_at := time.perf_counter()) < until:
        response = yield request
        if not _record_submit(dialect, load, response, final=_OK):
            yield _RETRY_AFTER_S
            continue
        if response is not None and response.status == _OK:
            _require_result(dialect, load.ids[-1], response.body)
        else:
            yield from _poll_until_done(dialect, load, started_at, POLL_INTERVAL_S)
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
        _require_result(dialect, run_id, _require_body(response, _OK))


def send_once(request: bytes, take: Callable[[HttpResponse], None]) -> Scenario:
    """Send one request and pass the response to ``take``."""
    response = yield request
    if response is not None:
        take(response)


def _poll_until_done(dialect: HttpDialect, load: LoadResult, started_at: float, interval_s: float) -> Scenario:
    """Poll the run that was accepted last until it is done; raise BenchmarkError a minute after ``started_at``."""
    poll = dialect.poll(load.ids[-1])
    while True:
        yield interval_s
        load.polls += 1
        response = yield poll
        if dialect.is_done(_require_body(response, _OK)):
            return
        if time.perf_counter() - started_at > _DONE_WITHIN_S:
            raise BenchmarkError(f"{dialect.name}: a run was not done within {_DONE_WITHIN_S:g} s")


def _record_submit(
    dialect: HttpDialect, load: LoadResult, response: HttpResponse | None, final: int = _ACCEPTED
) -> bool:
    """Record the response to a submit; return False for 503, True for 202 and for the status ``final``.

    Raises BenchmarkError for any other.
    """
    if response is None or response.status not in {_ACCEPTED, final, _UNAVAILABLE}:
        raise BenchmarkError(f"{dialect.name}: the response to a submit was {response}")
    load.statuses[response.status] += 1
    if response.status == _UNAVAILABLE:
        return False
    run_id = dialect.run_id_of(response.body)
    if run_id is None:
        raise BenchmarkError(f"{dialect.name}: no id in {response.body[:200]!r}")
    load.ids.append(run_id)
    return True


def _require_result(dialect: HttpDialect, run_id: str, body: bytes) -> None:
    if not dialect.is_done(body) or not dialect.has_expected_result(body):
        raise BenchmarkError(f"{dialect.name}: {run_id} ended with another result: {body[:600]!r}")


def _require_body(response: HttpResponse | None, status: int) -> bytes:
    if response is None or response.status != status:
        raise BenchmarkError(f"expected status {status}, got {response}")
    return response.body
