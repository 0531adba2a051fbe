"""``python -m benchmarks.hints``: the polls and the lateness of a caller that polls exactly as the poll hints say.

Runs of the simulator that take 0.2, 2 and 20 s are submitted in a shuffled order, first each kind as a basket of its
own, then all as one basket, so that only the age of a run can tell its kind. Each caller sleeps for the
``poll_after_ms`` of the 202, then for that of each reply. The figures are how often it polled, and how late it learned
of the end: the time of the last reply less the run's ``finished_at``, both by the clock of this machine. Before the
measured runs Bucket learns each basket from a few runs; ``--unlearned`` measures those too. It fails only if something
broke.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean, median
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from api.hints.poll_schedule import TOLERATED_LATENESS_S, TOLERATED_LATENESS_SHARE
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.report import print_progress
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.bucket_process_plans import fetch_json
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError

RUN_DURATIONS_S: Final = (0.2, 2.0, 20.0)
SLOTS: Final = 12
SHARED_BASKET: Final = "simulate"
_BUSY: Final = 0.7
_CALLERS: Final = 200


@dataclass(frozen=True, slots=True)
class HintSample:
    """The result of one run whose caller followed the hints: its number of polls, and how late it saw the end."""

    planned_s: float
    lasted_s: float
    polls: int
    late_s: float

    @property
    def lateness_ratio(self) -> float:
        """The lateness divided by the tolerated one: a fifth of the run's duration, but at least half a second."""
        return self.late_s / max(TOLERATED_LATENESS_S, TOLERATED_LATENESS_SHARE * self.lasted_s)


def main() -> int:
    """Submit, poll as hinted and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hints", description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="how many runs of each kind are measured (40)")
    parser.add_argument("--learned", type=int, default=12, help="how many of each kind come before them (12)")
    parser.add_argument("--unlearned", action="store_true", help="measure those that come first too")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            group_reaper = stack.enter_context(GroupReaper())
            side = SystemUnderTest(BUCKET, root, group_reaper, BUCKET_WORKER_CONCURRENCY=str(SLOTS))
            stack.callback(side.close)
            side.start()
            for title, baskets in (
                ("three baskets", _create_baskets(side)),
                ("one basket", dict.fromkeys(RUN_DURATIONS_S, SHARED_BASKET)),
            ):
                first = _measure_runs(side, baskets, options.learned, rng)
                print_progress(f"{title}: learned from {len(first)} runs")
                if options.unlearned:
                    _print_table(f"The first {options.learned} of each kind, {title}", first)
                _print_table(f"Runs of {title}", _measure_runs(side, baskets, options.runs, rng))
    except (BenchmarkError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"bench-hints: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    return 0


def _create_baskets(side: SystemUnderTest) -> Mapping[float, str]:
    """Create a basket for each kind of run; return their names by duration."""
    baskets = {kind_s: f"takes {kind_s:g} s" for kind_s in RUN_DURATIONS_S}
    for name in baskets.values():
        fetch_json(f"{side.url}/create-basket", {"name": name, "agents": ["simulate"]})
    return baskets


def _measure_runs(
    side: SystemUnderTest, baskets: Mapping[float, str], runs: int, rng: random.Random
) -> list[HintSample]:
    """Submit ``runs`` runs of each kind, at a rate that leaves slots free, and poll them as hinted."""
    kinds = [kind_s for kind_s in baskets for _ in range(runs)]
    rng.shuffle(kinds)
    gap_s = mean(RUN_DURATIONS_S) / SLOTS / _BUSY
    pause = threading.Event()
    with ThreadPoolExecutor(_CALLERS) as callers:
        futures = []
        for kind_s in kinds:
            futures.append(callers.submit(_poll_as_hinted, side, baskets[kind_s], kind_s))
            pause.wait(rng.expovariate(1 / gap_s))
        return [one.result() for one in futures]


def _poll_as_hinted(side: SystemUnderTest, basket: str, kind_s: float) -> HintSample:
    """Submit one run and poll it exactly when the hint says."""
    script = [f"running:{kind_s:g}@100", "completed"]
    reply = fetch_json(f"{side.url}/run-basket", {"basket_name": basket, "input_data": {"script": script}})
    url, polls = reply["status_url"], 0
    while not reply["done"]:
        threading.Event().wait(reply["poll_after_ms"] / 1_000)
        reply, polls = fetch_json(side.url + url), polls + 1
    learned_at = time.time()
    if reply["status"] != "completed":
        raise BenchmarkError(f"a run ended {reply['status']}: {reply['error']}")
    finished_at = datetime.fromisoformat(reply["finished_at"]).timestamp()
    lasted_s = finished_at - datetime.fromisoformat(reply["created_at"]).timestamp()
    return HintSample(kind_s, lasted_s, polls, learned_at - finished_at)


def _print_table(title: str, samples: Sequence[HintSample]) -> None:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    headings = ("runs of", "how many", "polls: mean", "95 %", "late: median", "95 %", "of tolerated: median", "within")
    for heading in headings:
        table.add_column(heading, justify="right")
    for kind_s in (*RUN_DURATIONS_S, None):
        selected = [one for one in samples if kind_s in {None, one.planned_s}]
        polls = sorted(one.polls for one in selected)
        late = sorted(one.late_s for one in selected)
        table.add_row(
            "all" if kind_s is None else f"{kind_s:g} s",
            str(len(selected)),
            f"{mean(polls):.2f}",
            str(_p95_of(polls)),
            f"{median(late) * 1_000:.0f} ms",
            f"{_p95_of(late) * 1_000:.0f} ms",
            f"{median(one.lateness_ratio for one in selected):.2f}",
            f"{mean(one.lateness_ratio <= 1 for one in selected):.0%}",
        )
    Console(width=118, highlight=False).print(table)


def _p95_of(ordered: Sequence[float]) -> float:
    return ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)]


if __name__ == "__main__":
    sys.exit(main())
