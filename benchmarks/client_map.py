"""``python -m benchmarks.client_map``: the client's map beside 16 threads that submit and poll one run at a time.

Figures: runs a second, HTTP requests a run, and the client's peak memory with 2,000 and with 20,000 runs (each map is a
process of its own). The threads use ``requests``; once they poll as the hints say, once each 20 ms, which no caller
should. All sides run on one server, in turns, for ``--rounds`` rounds. It fails only if something broke.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import requests
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.report import print_progress
from benchmarks.harness.systems import SystemUnderTest
from bucket_client import Bucket
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError

THREADS: Final = 16
BASKET: Final = "working_test"
_SHORT_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class MapSample:
    """One way of doing ``runs`` runs: how fast, with how many requests, and the peak memory of its process."""

    runs: int
    seconds: float
    requests: int
    peak_kib: int

    @property
    def rate(self) -> float:
        """Return runs a second."""
        return self.runs / self.seconds


def main() -> int:
    """Measure all sides and print the table; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_map", description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000, help="runs of the long map (20000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs, one round")
    parser.add_argument("--side", nargs=3, metavar=("NAME", "URL", "RUNS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name, url, runs = options.side
        sys.stdout.write(json.dumps(asdict(SIDES[name](url, int(runs)))))
        return 0
    long_map, rounds = (options.runs // 10, 1) if options.quick else (options.runs, options.rounds)
    plan = [("map", long_map // 10), ("map", long_map), ("hints", long_map // 40), ("short", long_map // 20)]
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            side = SystemUnderTest(BUCKET, root, stack.enter_context(GroupReaper()))
            stack.callback(side.close)
            side.start()
            _measure(side.url, "map", 1_000)  # the server learns the basket
            samples: dict[tuple[str, int], list[MapSample]] = {}
            for number in range(rounds):
                for name, runs in plan:
                    samples.setdefault((name, runs), []).append(_measure(side.url, name, runs))
                print_progress(f"round {number + 1} of {rounds}")
    except (BenchmarkError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"bench-client: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    _print_table(samples)
    return 0


def _measure(url: str, name: str, runs: int) -> MapSample:
    """Measure one side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.client_map", "--side", name, url, str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_200, check=False)  # noqa: S603
    if done.returncode:
        raise BenchmarkError(f"the side {name} failed: {done.stderr}")
    return MapSample(**json.loads(done.stdout))


def _input_of(number: int) -> dict[str, Any]:
    return {"transactions": [{"id": number, "amount": number % 97, "description": "a booking"}]}


def _map(url: str, runs: int) -> MapSample:
    with Bucket(url) as bucket:
        sent = _count_requests(bucket)
        begun, done = time.monotonic(), 0
        for result in bucket.map(BASKET, map(_input_of, range(runs))):
            done += result.execution is not None and result.execution.is_completed
        seconds = time.monotonic() - begun
    if done != runs:
        raise BenchmarkError(f"{runs - done} of {runs} runs did not complete")
    return MapSample(runs, seconds, len(sent), _peak_kib())


def _count_requests(bucket: Bucket) -> list[None]:
    """Return a list that grows with each request of the client."""
    sent: list[None] = []
    bucket._driver._http.event_hooks = {"request": [lambda _: sent.append(None)]}  # noqa: SLF001
    return sent


def _threads(url: str, runs: int, pause_s: Callable[[dict[str, Any]], float]) -> MapSample:
    sessions, sent = threading.local(), list[None]()

    def run_one(number: int) -> None:
        if not hasattr(sessions, "own"):
            sessions.own = requests.Session()
        body = {"basket_name": BASKET, "input_data": _input_of(number)}
        view = sessions.own.post(f"{url}/run-basket", json=body, timeout=30).json()
        sent.append(None)
        while not view["done"]:
            time.sleep(pause_s(view))
            view = sessions.own.get(url + f"/execution-logs/{view['execution_id']}", timeout=30).json()
            sent.append(None)
        if view["status"] != "completed":
            raise BenchmarkError(f"a run ended {view['status']}")

    begun = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run_one, range(runs)))
    return MapSample(runs, time.monotonic() - begun, len(sent), _peak_kib())


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


SIDES: Final[dict[str, Callable[[str, int], MapSample]]] = {
    "map": _map,
    "hints": lambda url, runs: _threads(url, runs, lambda view: view["poll_after_ms"] / 1_000),
    "short": lambda url, runs: _threads(url, runs, lambda _: _SHORT_POLL_S),
}
_TITLES: Final = {"map": "map", "hints": "16 threads, as the hints say", "short": "16 threads, each 20 ms"}


def _print_table(samples: dict[tuple[str, int], list[MapSample]]) -> None:
    table = Table(title="The client's map, medians", box=box.SIMPLE, title_justify="left")
    for heading in ("", "runs", "runs a second", "requests a run", "peak memory in MiB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for (name, runs), measured in samples.items():
        table.add_row(
            _TITLES[name],
            f"{runs:,}",
            f"{median(one.rate for one in measured):.0f}",
            f"{median(one.requests / one.runs for one in measured):.4f}",
            f"{median(one.peak_kib for one in measured) / 1024:.1f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
