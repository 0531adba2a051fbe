"""``make bench``: Bucket and the plain Flask + Celery + MongoDB application side by side, measured alternately.

It prints ratios; the rates are only those of this machine at this time. It fails only if a run was lost or ended with
another result: a benchmark is not a test.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness import measurements, report
from benchmarks.harness.http_dialects import BUCKET, REFERENCE
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.measurements import Figures
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError


@dataclass(frozen=True, slots=True)
class BenchmarkSize:
    """The size of a benchmark: the number of rounds, and what each of them measures."""

    rounds: int
    queued: int
    run_s: float
    poll_s: float
    rest_s: float
    warm_s: float


FULL: Final = BenchmarkSize(rounds=3, queued=3_000, run_s=5.0, poll_s=3.0, rest_s=5.0, warm_s=2.0)
QUICK: Final = BenchmarkSize(rounds=2, queued=500, run_s=1.5, poll_s=1.0, rest_s=1.0, warm_s=1.0)


class SystemsBenchmark:
    """Both systems and their results; ``figures`` holds, for each system, the figures of each round."""

    def __init__(self, sides: tuple[SystemUnderTest, SystemUnderTest], size: BenchmarkSize) -> None:
        self._sides = sides
        self._size = size
        self.figures: dict[str, list[Figures]] = {side.dialect.name: [{} for _ in range(size.rounds)] for side in sides}
        self._ids: dict[str, list[str]] = {}

    def run(self) -> None:
        """Take every measurement, in rounds; the system that begins changes with each round."""
        size = self._size
        for side in self._sides:
            self._end_to_end(side, size.warm_s)
        self._measure_each("at rest", lambda side: measurements.measure_idle(side, size.rest_s))
        self._measure_each("accept and drain", self._burst)
        self._measure_each("end to end", lambda side: self._end_to_end(side, size.run_s))
        self._measure_each("poll", lambda side: self._poll(side, unchanged=False))
        self._measure_each("poll, unchanged", lambda side: self._poll(side, unchanged=True))

    def _measure_each(self, measure: str, take: Callable[[SystemUnderTest], Figures]) -> None:
        for number in range(self._size.rounds):
            for side in self._sides if number % 2 == 0 else reversed(self._sides):
                began = time.perf_counter()
                self.figures[side.dialect.name][number] |= take(side)
                took_s = time.perf_counter() - began
                report.print_progress(f"{measure}, round {number + 1}: {side.dialect.name}, {took_s:.1f} s")

    def _burst(self, side: SystemUnderTest) -> Figures:
        return measurements.burst(side, self._size.queued)

    def _end_to_end(self, side: SystemUnderTest, seconds: float) -> Figures:
        figures, self._ids[side.dialect.name] = measurements.end_to_end(side, seconds)
        return figures

    def _poll(self, side: SystemUnderTest, *, unchanged: bool) -> Figures:
        return measurements.poll(side, self._ids[side.dialect.name], self._size.poll_s, unchanged=unchanged)


def main() -> int:
    """Measure and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short form of less than a minute")
    parser.add_argument("--rounds", type=int, help="how often each measure is taken")
    parser.add_argument("--queued", type=int, help="how many runs are queued and drained")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    overrides = {name: value for name in ("rounds", "queued") if (value := getattr(options, name)) is not None}
    size = BenchmarkSize(**{name: getattr(size, name) for name in BenchmarkSize.__slots__} | overrides)
    began = time.monotonic()
    try:
        bench = _run_benchmark(size)
    except (BenchmarkError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"bench: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    report.print_report(bench.figures[REFERENCE.name], bench.figures[BUCKET.name])
    report.print_progress(f"took {time.monotonic() - began:.0f} s")
    return 0


def _run_benchmark(size: BenchmarkSize) -> SystemsBenchmark:
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
        group_reaper = stack.enter_context(GroupReaper())
        sides = (
            SystemUnderTest(REFERENCE, root / "reference", group_reaper),
            SystemUnderTest(BUCKET, root / "bucket", group_reaper),
        )
        for side in sides:
            stack.callback(side.close)
            side.start()
        bench = SystemsBenchmark(sides, size)
        bench.run()
    return bench


if __name__ == "__main__":
    sys.exit(main())
