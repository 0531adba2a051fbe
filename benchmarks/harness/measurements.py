"""Measurements on one system: each is taken once, then checks that all its runs have ended with the right result."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from benchmarks.harness.balanced_connections import opened_evenly
from benchmarks.harness.cpu_time import cpu_time_by_pid
from benchmarks.harness.http_dialects import HttpDialect
from benchmarks.harness.load_generator import ETAG_HEADER, BenchmarkError, HttpResponse, LoadGenerator, Scenario
from benchmarks.harness.memory import pss_bytes
from benchmarks.harness.scenarios import (
    LoadResult,
    check_results,
    poll_repeatedly,
    send_once,
    submit_and_hold,
    submit_and_poll,
    submit_each,
)
from benchmarks.harness.systems import SystemUnderTest

USERS: Final = 32
END_TO_END_USERS: Final = 16
_CHECK_EVERY_S: Final = 0.025
_NO_PROGRESS_S: Final = 60.0
_SAMPLE: Final = 100
_IDLE_S: Final = 0.2
_LONE_INTERVAL_S: Final = 0.002
_SERVERS: Final = ("redis", "mongod")
_MS, _US = 1_000, 1_000_000
_BYTES_A_MB: Final = 1_000_000

Figures = dict[str, float]


@dataclass(slots=True)
class Cost:
    """The cost of a measured block, filled at its end: wall seconds, and CPU seconds of each part of the system."""

    wall_s: float = 0.0
    cpu_s: Mapping[str, float] = field(default_factory=dict)

    def per_item(self, measure: str, count: int) -> Figures:
        """Return µs of CPU for each of ``count`` items, by part and in total."""
        parts = {part: seconds * _US / count for part, seconds in self.cpu_s.items()}
        return {f"{measure} CPU {part}": cost for part, cost in (parts | {"in all": sum(parts.values())}).items()}


def burst(side: SystemUnderTest, count: int) -> Figures:
    """Accept ``count`` runs while the worker is paused, then let it drain them; return the figures of both.

    The drain rate is ``drain runs/s``.
    """
    load, turns = LoadResult(), iter(range(count))
    with (
        side.paused_worker(),
        opened_evenly(side.address, USERS, side.api_pids()) as connections,
        _measuring_cost(side) as accept,
    ):
        LoadGenerator().run(connections, [submit_each(side.dialect, load, turns) for _ in connections])
    side.accepted_count += len(load.ids)
    with _measuring_cost(side) as drain:
        drained_s = _wait_until_done(side, load.ids)
        _wait_until_idle(side)  # left-over messages, which will be refused, count for the cost and not for the time
    figures = {"accept/s": count / accept.wall_s, "drain runs/s": count / drained_s, "refused": load.statuses[503]}
    figures |= _latencies("accept", load.latencies) | accept.per_item("accept", count) | drain.per_item("drain", count)
    _check_all_completed(side, load.ids)
    return figures


def end_to_end(side: SystemUnderTest, seconds: float) -> Figures:
    """Let callers submit and poll every 20 ms until done, repeatedly, for ``seconds``."""
    return _call(side, "end to end", END_TO_END_USERS, seconds, submit_and_poll)


def one_call(side: SystemUnderTest, seconds: float) -> Figures:
    """Let as many callers as :func:`end_to_end` has get each result in the response to the submit, which is held."""
    return _call(side, "one call", END_TO_END_USERS, seconds, submit_and_hold)


def lone_caller(side: SystemUnderTest, seconds: float) -> Figures:
    """Let one caller submit and poll every 2 ms until done, repeatedly, for ``seconds``: no run waits for another."""
    scenario = partial(submit_and_poll, interval_s=_LONE_INTERVAL_S)
    return _call(side, "lone caller", 1, seconds, scenario)


def poll(side: SystemUnderTest, seconds: float, *, unchanged: bool) -> Figures:
    """Poll the runs of the last load for ``seconds``; if ``unchanged``, with their ETags, if the system has any."""
    measure, load = "poll 304" if unchanged else "poll 200", LoadResult()
    chosen = side.finished_ids[:_SAMPLE]
    with opened_evenly(side.address, USERS, side.api_pids()) as connections:
        etags = _etags(side, chosen, connections[0]) if unchanged else [None] * len(chosen)
        status = 304 if any(etags) else 200
        requests = [side.dialect.poll(run_id, etag) for run_id, etag in zip(chosen, etags, strict=True)]
        with _measuring_cost(side) as cost:
            until = time.perf_counter() + seconds
            LoadGenerator().run(connections, [poll_repeatedly(requests, load, until, status) for _ in connections])
    figures = {f"{measure}/s": len(load.latencies) / cost.wall_s}
    return figures | _latencies(measure, load.latencies) | cost.per_item(measure, len(load.latencies))


def measure_idle(sides: Sequence[SystemUnderTest], seconds: float) -> list[Figures]:
    """Do nothing for twice ``seconds``; return the ms of CPU that each idle system uses in a second, by part.

    The first half is left out: subscriptions and connections that the load before has left end in it. All are measured
    at the same moment: nothing else makes such small figures comparable. ``rest, % of a core`` is the sum without the
    servers.
    """
    time.sleep(seconds)
    with ExitStack() as stack:
        costs = [stack.enter_context(_measuring_cost(side)) for side in sides]
        time.sleep(seconds)
    return [_idle_figures(cost, seconds) for cost in costs]


def measure_memory(side: SystemUnderTest) -> Figures:
    """Return the PSS of the API with its processes, and of the worker with its children and the reconciler, in MB."""
    side.check_alive()
    mb = {name: pss_bytes(pid) / _BYTES_A_MB for name, pid in side.pids().items() if name not in _SERVERS}
    api = mb.pop("api")
    return {"API PSS, MB": api, "worker PSS, MB": sum(mb.values())}


def _call(
    side: SystemUnderTest,
    measure: str,
    callers: int,
    seconds: float,
    scenario: Callable[[HttpDialect, LoadResult, float], Scenario],
) -> Figures:
    """Run ``scenario`` for each of ``callers``, for ``seconds``, then check the result of each run."""
    load = LoadResult()
    with opened_evenly(side.address, callers, side.api_pids()) as connections, _measuring_cost(side) as cost:
        until = time.perf_counter() + seconds
        LoadGenerator().run(connections, [scenario(side.dialect, load, until) for _ in connections])
    side.accepted_count += len(load.ids)
    side.finished_ids = load.ids
    in_time = sum(moment <= until for moment in load.ended_at)
    figures = {f"{measure} runs/s": in_time / seconds, f"{measure} polls a run": load.polls / len(load.ids)}
    figures |= _latencies(measure, load.latencies) | cost.per_item(measure, len(load.ids))
    _wait_until_done(side, load.ids)
    _wait_until_idle(side)
    _check_all_completed(side, load.ids)
    return figures


def _idle_figures(cost: Cost, seconds: float) -> Figures:
    parts = {part: used * _MS / seconds for part, used in cost.cpu_s.items()}
    own = sum(ms for part, ms in parts.items() if part not in _SERVERS)
    figures = {f"rest CPU {part}": ms for part, ms in (parts | {"in all": sum(parts.values())}).items()}
    return figures | {"rest, % of a core": own / _MS * 100}


@contextmanager
def _measuring_cost(side: SystemUnderTest) -> Iterator[Cost]:
    cost = Cost()
    before, began = _cpu_by_part(side), time.perf_counter()
    yield cost
    cost.wall_s = time.perf_counter() - began
    after = _cpu_by_part(side)
    cost.cpu_s = {part: after[part] - before[part] for part in after}


def _cpu_by_part(side: SystemUnderTest) -> dict[str, float]:
    """Return the CPU seconds used so far, by part."""
    side.check_alive()
    pids = side.pids()
    used = cpu_time_by_pid(pids.values())
    parts = {"API": used[pids["api"]].total_s}
    parts["worker main"] = used[pids["worker"]].own_s
    parts["worker children"] = used[pids["worker"]].children_s
    return parts | {name: used[pids[name]].total_s for name in ("reconciler", *_SERVERS) if name in pids}


def _wait_until_done(side: SystemUnderTest, ids: Sequence[str]) -> float:
    """Wait until all accepted runs are completed in MongoDB; return the seconds that it took.

    A full count reads the whole collection, so first only a sample is checked until it is done.
    """
    began = progress_at = time.perf_counter()
    sample = {*ids[:: max(1, len(ids) // _SAMPLE)], *ids[-_SAMPLE:]}
    runs = side.mongo.get_default_database()[side.dialect.collection]
    open_before = len(sample) + 1
    while True:
        still_open = runs.count_documents({"_id": {"$in": list(sample)}, "status": {"$ne": "completed"}})
        if not still_open and side.completed_count() == side.accepted_count:
            return time.perf_counter() - began
        if still_open < open_before:
            open_before, progress_at = still_open, time.perf_counter()
        if time.perf_counter() - progress_at > _NO_PROGRESS_S:
            raise BenchmarkError(
                f"{side.dialect.name}: {side.completed_count()} of {side.accepted_count} runs are completed"
            )
        time.sleep(_CHECK_EVERY_S)


def _wait_until_idle(side: SystemUnderTest) -> None:
    due_by = time.perf_counter() + _NO_PROGRESS_S
    while side.backlog_size():
        if time.perf_counter() > due_by:
            raise BenchmarkError(
                f"{side.dialect.name}: {side.backlog_size()} messages wait, and all runs are completed"
            )
        time.sleep(_CHECK_EVERY_S)
    time.sleep(_IDLE_S)


def _check_all_completed(side: SystemUnderTest, ids: Sequence[str]) -> None:
    if side.completed_count() != side.accepted_count or len(set(ids)) != len(ids):
        raise BenchmarkError(
            f"{side.dialect.name}: {side.completed_count()} of {side.accepted_count} runs are completed"
        )
    remaining = iter(ids)
    with opened_evenly(side.address, USERS, side.api_pids()) as connections:
        LoadGenerator().run(connections, [check_results(side.dialect, remaining) for _ in connections])


def _etags(side: SystemUnderTest, ids: Sequence[str], connection: socket.socket) -> list[str | None]:
    etags: list[str | None] = []

    def record_etag(response: HttpResponse) -> None:
        match = ETAG_HEADER.search(response.head)
        etags.append(None if match is None else match[1].decode())

    for run_id in ids:
        LoadGenerator().run([connection], [send_once(side.dialect.poll(run_id), record_etag)])
    return etags


def _latencies(measure: str, seconds: Sequence[float]) -> Figures:
    cuts = statistics.quantiles(seconds, n=100)
    return {f"{measure} p50 ms": cuts[49] * _MS, f"{measure} p99 ms": cuts[98] * _MS}
