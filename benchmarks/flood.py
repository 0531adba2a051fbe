"""``make flood``: 10,000 executions in flight, polled by 200 clients until all are done; no response may be wrong.

It fails on any 404 or 5xx to a poll, on a ``rev`` that decreases, on a final status that changes, on a run that does
not complete; and prints how long polls took. Each client polls its own runs in turn, with and without the ETag.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.harness.balanced_connections import opened_evenly
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError, HttpResponse, LoadGenerator, Scenario
from benchmarks.harness.report import print_progress
from benchmarks.harness.scenarios import LoadResult, submit_each
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError

SUBMITTERS: Final = 16
_HEAD: Final = re.compile(rb'"status":"([a-z]+)","done":(true|false),"rev":(\d+)')
_FINAL: Final = frozenset({b"completed", b"failed", b"cancelled"})
_OK, _NOT_MODIFIED = 200, 304

_ScenarioOf = Callable[[int], Scenario]


@dataclass(slots=True)
class PolledRun:
    """One run, with the state that its latest poll showed."""

    id: str
    rev: int = 0
    status: bytes = b""
    polls: int = 0


@dataclass(slots=True)
class FloodResult:
    """The result for all clients; ``violations`` holds a sentence for each wrong response."""

    latencies: list[float] = field(default_factory=list)
    status_counts: Counter[int] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    in_flight_most: int = 0

    def record(self, run: PolledRun, response: HttpResponse | None, *, conditional: bool) -> None:
        """Compare one response with the earlier ones of the run."""
        status = 0 if response is None else response.status
        self.status_counts[status] += 1
        run.polls += 1
        if response is not None and status == _NOT_MODIFIED and conditional:
            return
        match = _HEAD.search(response.body) if response is not None and status == _OK else None
        if match is None:
            self.violations.append(f"{run.id}: the response to a poll was {response}")
            return
        shown_status, rev = match[1], int(match[3])
        if rev < run.rev:
            self.violations.append(f"{run.id}: rev went back from {run.rev} to {rev}")
        if run.status in _FINAL and shown_status != run.status:
            self.violations.append(f"{run.id}: {run.status.decode()} became {shown_status.decode()}")
        if (match[2] == b"true") != (shown_status in _FINAL):
            self.violations.append(f"{run.id}: done is {match[2].decode()} and status {shown_status.decode()}")
        run.rev, run.status = rev, shown_status


def poll_until_done(runs: Sequence[PolledRun], result: FloodResult, until: float) -> Scenario:
    """Poll ``runs`` in turn until each is final, then each of them once more."""
    waiting = list(runs)
    while waiting:
        for run in waiting:
            yield from _poll(run, result)
        waiting = [run for run in waiting if run.status not in _FINAL]
        if waiting and time.perf_counter() > until:
            result.violations.append(f"{len(waiting)} runs of one client are not done: {waiting[0]}")
            return
    for run in runs:
        yield from _poll(run, result, conditional=False)


def _poll(run: PolledRun, result: FloodResult, *, conditional: bool | None = None) -> Scenario:
    is_conditional = bool(run.polls % 2) if conditional is None else conditional
    etag = f'W/"{run.id}.{run.rev}"' if is_conditional else None
    began = time.perf_counter()
    response = yield BUCKET.poll(run.id, etag)
    result.latencies.append(time.perf_counter() - began)
    result.record(run, response, conditional=is_conditional)


def flood(side: SystemUnderTest, executions: int, clients: int, within_s: float) -> FloodResult:
    """Submit all executions while the worker is paused, resume it, and poll them until the last is done."""
    load, turns = LoadResult(), iter(range(executions))
    with side.paused_worker():
        _run_scenarios(side, SUBMITTERS, lambda _: submit_each(side.dialect, load, turns))
    side.accepted_count += len(load.ids)
    print_progress(f"{len(load.ids)} executions are in flight")
    result, until = FloodResult(in_flight_most=len(load.ids)), time.perf_counter() + within_s
    shares = [[PolledRun(run_id) for run_id in load.ids[number::clients]] for number in range(clients)]
    _run_scenarios(side, clients, lambda number: poll_until_done(shares[number], result, until))
    others = {run.status for share in shares for run in share} - {b"completed"}
    if others:
        result.violations.append(f"some runs ended otherwise: {others}")
    if side.completed_count() != side.accepted_count:
        result.violations.append(f"{side.completed_count()} of {side.accepted_count} runs are completed in MongoDB")
    return result


def _run_scenarios(side: SystemUnderTest, count: int, flow_of: _ScenarioOf) -> None:
    with opened_evenly(side.address, count, side.api_pids()) as connections:
        LoadGenerator().run(connections, [flow_of(number) for number in range(count)])


def format_result(result: FloodResult) -> Iterator[str]:
    """Yield the figures as lines to print."""
    cuts = [cut * 1_000 for cut in statistics.quantiles(result.latencies, n=100)]
    yield f"executions in flight at once   {result.in_flight_most}"
    yield f"polls                          {len(result.latencies)}"
    yield f"answers                        {dict(sorted(result.status_counts.items()))}"
    yield f"a poll took, p50, p99, max ms  {cuts[49]:.0f}, {cuts[98]:.0f}, {max(result.latencies) * 1_000:.0f}"
    yield f"wrong answers                  {len(result.violations)}"
    yield from result.violations[:10]


def main() -> int:
    """Run the flood and print the figures; return 0, or 1 if a response was wrong or something broke."""
    parser = argparse.ArgumentParser(prog="make flood ARGS=...", description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000, help="how many are in flight at once (10000)")
    parser.add_argument("--clients", type=int, default=200, help="how many poll them (200)")
    parser.add_argument("--within", type=float, default=600.0, help="in how many seconds all must be done (600)")
    options = parser.parse_args()
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-flood-")))
            side = SystemUnderTest(BUCKET, root, stack.enter_context(GroupReaper()))
            stack.callback(side.close)
            side.start()
            result = flood(side, options.executions, options.clients, options.within)
    except (BenchmarkError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"flood: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    sys.stdout.write("\n".join(format_result(result)) + "\n")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
