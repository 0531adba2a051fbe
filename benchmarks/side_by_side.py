"""``make bench``: Bucket and the plain Flask + Celery + MongoDB application side by side, in one run, taking turns.

It prints ratios; the rates behind them are those of this machine at this moment. It fails only where a run was lost
or ended with another result: a bench is no test.
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
from benchmarks.harness.load_generator import Broken
from benchmarks.harness.measurements import Figures
from benchmarks.harness.systems import Side
from compose.embedded.group_reaper import Guard
from compose.errors import Trouble


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured in each of ``rounds``."""

    rounds: int
    queued: int
    run_s: float
    poll_s: float
    rest_s: float
    warm_s: float


FULL: Final = Size(rounds=3, queued=3_000, run_s=5.0, poll_s=3.0, rest_s=5.0, warm_s=2.0)
QUICK: Final = Size(rounds=2, queued=500, run_s=1.5, poll_s=1.0, rest_s=1.0, warm_s=1.0)


class Bench:
    """Both sides and what was found; ``found`` holds a table for each side and round."""

    def __init__(self, sides: tuple[Side, Side], size: Size) -> None:
        self._sides = sides
        self._size = size
        self.found: dict[str, list[Figures]] = {side.tongue.name: [{} for _ in range(size.rounds)] for side in sides}
        self._ids: dict[str, list[str]] = {}

    def run(self) -> None:
        """Take every measure, in rounds; the side that begins changes with each."""
        size = self._size
        for side in self._sides:
            self._end_to_end(side, size.warm_s)
        self._take("at rest", lambda side: measurements.rest(side, size.rest_s))
        self._take("accept and drain", self._burst)
        self._take("end to end", lambda side: self._end_to_end(side, size.run_s))
        self._take("poll", lambda side: self._poll(side, unchanged=False))
        self._take("poll, unchanged", lambda side: self._poll(side, unchanged=True))

    def _take(self, measure: str, take: Callable[[Side], Figures]) -> None:
        for number in range(self._size.rounds):
            for side in self._sides if number % 2 == 0 else reversed(self._sides):
                began = time.perf_counter()
                self.found[side.tongue.name][number] |= take(side)
                took_s = time.perf_counter() - began
                report.progress(f"{measure}, round {number + 1}: {side.tongue.name}, {took_s:.1f} s")

    def _burst(self, side: Side) -> Figures:
        figures, _ = measurements.burst(side, self._size.queued)
        return figures

    def _end_to_end(self, side: Side, seconds: float) -> Figures:
        figures, self._ids[side.tongue.name] = measurements.end_to_end(side, seconds)
        return figures

    def _poll(self, side: Side, *, unchanged: bool) -> Figures:
        return measurements.poll(side, self._ids[side.tongue.name], self._size.poll_s, unchanged=unchanged)


def main() -> int:
    """Measure, print, and answer 0 unless something broke."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short form of less than a minute")
    parser.add_argument("--rounds", type=int, help="how often each measure is taken")
    parser.add_argument("--queued", type=int, help="how many runs are queued and drained")
    told = parser.parse_args()
    size = QUICK if told.quick else FULL
    given = {name: value for name in ("rounds", "queued") if (value := getattr(told, name)) is not None}
    size = Size(**{name: getattr(size, name) for name in Size.__slots__} | given)
    began = time.monotonic()
    try:
        bench = _measured(size)
    except (Broken, Trouble, RuntimeError, OSError) as broken:
        sys.stderr.write(f"bench: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    report.print_all(bench.found[REFERENCE.name], bench.found[BUCKET.name])
    report.progress(f"took {time.monotonic() - began:.0f} s")
    return 0


def _measured(size: Size) -> Bench:
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
        guard = stack.enter_context(Guard())
        sides = (Side(REFERENCE, root / "reference", guard), Side(BUCKET, root / "bucket", guard))
        for side in sides:
            stack.callback(side.close)
            side.start()
        bench = Bench(sides, size)
        bench.run()
    return bench


if __name__ == "__main__":
    sys.exit(main())
