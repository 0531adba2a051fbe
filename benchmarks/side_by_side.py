"""``make bench``: Bucket and the plain Flask + Celery + MongoDB application side by side, measured alternately.

It prints ratios; the rates are only those of this machine at this time. It fails only if a run was lost or ended with
another result: a benchmark is not a test. With ``--beside DIRECTORY`` another build of Bucket is measured too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.harness import measurements, report
from benchmarks.harness.builds import THIS_BUILD, Build
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
    lone_s: float
    poll_s: float
    rest_s: float
    warm_s: float


FULL: Final = BenchmarkSize(rounds=5, queued=2_000, run_s=5.0, lone_s=3.0, poll_s=3.0, rest_s=15.0, warm_s=2.0)
QUICK: Final = BenchmarkSize(rounds=2, queued=500, run_s=1.5, lone_s=1.0, poll_s=1.0, rest_s=1.0, warm_s=1.0)

# Prepares one side, which stores data and logs in the directory.
SideFactory = Callable[[Path], SystemUnderTest]


class SystemsBenchmark:
    """The sides and their results; ``figures`` holds, for each side, the figures of each round."""

    def __init__(self, factories: Mapping[str, SideFactory], size: BenchmarkSize) -> None:
        self._factories = factories
        self._size = size
        self.figures: dict[str, list[Figures]] = {name: [{} for _ in range(size.rounds)] for name in factories}

    def run(self) -> None:
        """Take every measurement once in each round; the side that begins changes with each round.

        Each round starts all sides anew. Two processes of the same code differ by up to a tenth for as long as they
        live, by the layout of their memory: measurements of one pair of processes share that difference, however often
        they are repeated, and their median keeps it.
        """
        for number in range(self._size.rounds):
            with self._started_sides(number) as sides:
                self._take_round(number, sides)

    @contextmanager
    def _started_sides(self, number: int) -> Iterator[Mapping[str, SystemUnderTest]]:
        """Start all sides on empty stores; the order of the mapping is that of this round."""
        names = list(self._factories)
        if number % 2:
            names.reverse()
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            sides = {}
            for name in names:
                sides[name] = side = self._factories[name](root / name.replace(" ", "-"))
                stack.callback(side.close)
                side.start()
            yield sides

    def _take_round(self, number: int, sides: Mapping[str, SystemUnderTest]) -> None:
        size = self._size
        for side in sides.values():
            measurements.end_to_end(side, size.warm_s)
        idle_figures = measurements.measure_idle(list(sides.values()), size.rest_s)
        for name, figures in zip(sides, idle_figures, strict=True):
            self.figures[name][number] |= figures
        measures: Mapping[str, Callable[[SystemUnderTest], Figures]] = {
            "accept and drain": lambda side: measurements.burst(side, size.queued),
            "end to end": self._end_to_end,
            "lone caller": lambda side: measurements.lone_caller(side, size.lone_s),
            "poll": lambda side: measurements.poll(side, size.poll_s, unchanged=False),
            "poll, unchanged": lambda side: measurements.poll(side, size.poll_s, unchanged=True),
            "memory": measurements.measure_memory,  # the last, because it is that of processes that have worked
        }
        for measure, take in measures.items():
            for name, side in sides.items():
                began = time.perf_counter()
                self.figures[name][number] |= take(side)
                took_s = time.perf_counter() - began
                report.print_progress(f"round {number + 1}, {measure}: {name}, {took_s:.1f} s")

    def _end_to_end(self, side: SystemUnderTest) -> Figures:
        """Measure submits that are polled and, if the side has them, submits that are held.

        Directly after each other, because both are compared with the polled submits of the reference.
        """
        figures = measurements.end_to_end(side, self._size.run_s)
        return figures | measurements.one_call(side, self._size.run_s) if side.dialect.holds_submits else figures


def main() -> int:
    """Measure and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short form of two minutes")
    parser.add_argument("--rounds", type=int, help="how often each measure is taken")
    parser.add_argument("--queued", type=int, help="how many runs are queued and drained")
    parser.add_argument("--beside", type=Path, metavar="DIRECTORY", help="another checkout, after `make setup` in it")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    overrides = {name: value for name in ("rounds", "queued") if (value := getattr(options, name)) is not None}
    size = BenchmarkSize(**{name: getattr(size, name) for name in BenchmarkSize.__slots__} | overrides)
    began = time.monotonic()
    try:
        bench = _run_benchmark(size, None if options.beside is None else Build.at(options.beside))
    except (BenchmarkError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"bench: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    report.print_report(bench.figures)
    report.print_progress(f"took {time.monotonic() - began:.0f} s")
    return 0


def _run_benchmark(size: BenchmarkSize, other: Build | None) -> SystemsBenchmark:
    with GroupReaper() as group_reaper:

        def of_build(name: str, build: Build) -> SideFactory:
            dialect = replace(BUCKET, name=name)  # an error names the side
            return lambda root: SystemUnderTest(dialect, root, group_reaper, build=build)

        # This build is in the middle, so that in each order it is measured directly before or after each of the others.
        factories = {
            report.REFERENCE: lambda root: SystemUnderTest(REFERENCE, root, group_reaper),
            report.THIS_BUILD: of_build(report.THIS_BUILD, THIS_BUILD),
        }
        if other is not None:
            factories[report.OTHER_BUILD] = of_build(report.OTHER_BUILD, other)
        bench = SystemsBenchmark(factories, size)
        bench.run()
    return bench


if __name__ == "__main__":
    sys.exit(main())
