"""``make flood``: 10,000 executions in flight, polled by 200 clients until all are done; no answer may ever lie.

It fails on any 404 or 5xx to a poll, on a ``rev`` that goes back, on a final status that changes, on a run that does
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

from benchmarks.harness.balanced_connections import open_evenly
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError, HttpResponse, LoadGenerator, Scenario
from benchmarks.harness.report import print_progress
from benchmarks.harness.scenarios import LoadResult, submit_each
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.group_reaper import GroupReaper
from compose.errors import OperatorError

SUBMITTERS: Final = 16
_HEAD: Final = re.compile(rb'"status":"([a-z]+)","done":(true|false),"rev":(\d+)')
_FINAL: Final = frozenset({b"completed", b"failed", b"cancelled"})
_OK, _NOT_MODIFIED = 200, 304

_FlowOf = Callable[[int], Scenario]


@dataclass(slots=True)
class PolledRun:
    """What its polls have shown of one run so far."""

    id: str
    rev: int = 0
    status: bytes = b""
    polls: int = 0


@dataclass(slots=True)
class FloodResult:
    """What all clients saw; ``wrong`` holds a sentence for each answer that may not be."""

    latencies: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    in_flight_most: int = 0

    def record(self, run: PolledRun, answer: HttpResponse | None, *, conditional: bool) -> None:
        """Compare one answer with what was shown before."""
        status = 0 if answer is None else answer.status
        self.answers[status] += 1
        run.polls += 1
        if answer is not None and status == _NOT_MODIFIED and conditional:
            return
        found = _HEAD.search(answer.body) if answer is not None and status == _OK else None
        if found is None:
            self.violations.append(f"{run.id}: a poll was answered {answer}")
            return
        shown, rev = found[1], int(found[3])
        if rev < run.rev:
            self.violations.append(f"{run.id}: rev went back from {run.rev} to {rev}")
        if run.status in _FINAL and shown != run.status:
            self.violations.append(f"{run.id}: {run.status.decode()} became {shown.decode()}")
        if (found[2] == b"true") != (shown in _FINAL):
            self.violations.append(f"{run.id}: done is {found[2].decode()} and status {shown.decode()}")
        run.rev, run.status = rev, shown


def poll_until_done(runs: Sequence[PolledRun], seen: FloodResult, until: float) -> Scenario:
    """Poll ``runs`` in turn until each is final, then each once more."""
    waiting = list(runs)
    while waiting:
        for run in waiting:
            yield from _poll(run, seen)
        waiting = [run for run in waiting if run.status not in _FINAL]
        if waiting and time.perf_counter() > until:
            seen.violations.append(f"{len(waiting)} runs of one client are not done: {waiting[0]}")
            return
    for run in runs:
        yield from _poll(run, seen, conditional=False)


def _poll(run: PolledRun, seen: FloodResult, *, conditional: bool | None = None) -> Scenario:
    knows = bool(run.polls % 2) if conditional is None else conditional
    etag = f'W/"{run.id}.{run.rev}"' if knows else None
    began = time.perf_counter()
    answer = yield BUCKET.poll(run.id, etag)
    seen.latencies.append(time.perf_counter() - began)
    seen.record(run, answer, conditional=knows)


def flood(side: SystemUnderTest, executions: int, clients: int, within_s: float) -> FloodResult:
    """Submit all executions to a paused worker, let it go, and poll them until the last is done."""
    tally, turns = LoadResult(), iter(range(executions))
    worker = side.children["worker"]
    worker.pause()
    try:
        _run(side, SUBMITTERS, lambda _: submit_each(side.dialect, tally, turns))
    finally:
        worker.resume()
    side.accepted_count += len(tally.ids)
    print_progress(f"{len(tally.ids)} executions are in flight")
    seen, until = FloodResult(in_flight_most=len(tally.ids)), time.perf_counter() + within_s
    shares = [[PolledRun(run_id) for run_id in tally.ids[number::clients]] for number in range(clients)]
    _run(side, clients, lambda number: poll_until_done(shares[number], seen, until))
    others = {run.status for share in shares for run in share} - {b"completed"}
    if others:
        seen.violations.append(f"some runs ended otherwise: {others}")
    if side.completed_count() != side.accepted_count:
        seen.violations.append(f"{side.completed_count()} of {side.accepted_count} runs are completed in MongoDB")
    return seen


def _run(side: SystemUnderTest, count: int, flow_of: _FlowOf) -> None:
    connections = open_evenly(side.address, count, side.api_pids())
    try:
        LoadGenerator().run(connections, [flow_of(number) for number in range(count)])
    finally:
        for connection in connections:
            connection.close()


def format_result(seen: FloodResult) -> Iterator[str]:
    """Answer the figures as lines to print."""
    cuts = [cut * 1_000 for cut in statistics.quantiles(seen.latencies, n=100)]
    yield f"executions in flight at once   {seen.in_flight_most}"
    yield f"polls                          {len(seen.latencies)}"
    yield f"answers                        {dict(sorted(seen.answers.items()))}"
    yield f"a poll took, p50, p99, max ms  {cuts[49]:.0f}, {cuts[98]:.0f}, {max(seen.latencies) * 1_000:.0f}"
    yield f"wrong answers                  {len(seen.violations)}"
    yield from seen.violations[:10]


def main() -> int:
    """Flood, print, and answer 0 unless an answer was wrong."""
    parser = argparse.ArgumentParser(prog="make flood ARGS=...", description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000, help="how many are in flight at once (10000)")
    parser.add_argument("--clients", type=int, default=200, help="how many poll them (200)")
    parser.add_argument("--within", type=float, default=600.0, help="in how many seconds all must be done (600)")
    asked = parser.parse_args()
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-flood-")))
            side = SystemUnderTest(BUCKET, root, stack.enter_context(GroupReaper()))
            stack.callback(side.close)
            side.start()
            seen = flood(side, asked.executions, asked.clients, asked.within)
    except (BenchmarkError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"flood: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    sys.stdout.write("\n".join(format_result(seen)) + "\n")
    return 1 if seen.violations else 0


if __name__ == "__main__":
    sys.exit(main())
