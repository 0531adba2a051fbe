"""``make bench-ui``: how long the API takes for each page of the dashboard while many runs are stored.

The time is from the first byte of the request to the last of the reply, on one connection of this machine, so that of
the server and a little more; each page is loaded with nothing cached. It fails only if something broke.
"""

from __future__ import annotations

import argparse
import http.client
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import requests
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.report import print_progress
from benchmarks.harness.sample_executions import insert_finished
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError
from shared.bootstrap import bootstrap
from shared.errors import BucketError
from shared.settings import Settings

AIM_MS: Final = 300
_PAGES: Final = (
    "/",
    "/ui/runs",
    "/ui/runs?status=failed",
    "/ui/runs?basket=chained_test&tag=nightly",
    "/ui/runs/{run}",
    "/ui/baskets",
    "/ui/baskets/chained_test",
    "/ui/baskets/chained_test/run",
    "/ui/workers",
    "/ui/dead-letters",
    "/ui/consumers",
)


def main() -> int:
    """Store runs, load each page many times and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="make bench-ui ARGS=...", description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000, help="how many runs are stored (100000)")
    parser.add_argument("--loads", type=int, default=60, help="how often each page is loaded (60)")
    options = parser.parse_args()
    console = Console(width=118, highlight=False)
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            side = SystemUnderTest(BUCKET, root, stack.enter_context(GroupReaper()))
            stack.callback(side.close)
            side.start()
            _store(side, options.documents)
            console.print(_table(measure(side.url, options.loads), options.documents, options.loads))
    except (BenchmarkError, BucketError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"bench-ui: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    return 0


def measure(url: str, loads: int) -> Mapping[str, Sequence[float]]:
    """Return the milliseconds of each load of each page, sorted; the pages take turns."""
    newest = requests.get(f"{url}/executions", params={"limit": 1}, timeout=10).json()["executions"]
    paths = {page: page.format(run=newest[0]["execution_id"]) for page in _PAGES}
    took: dict[str, list[float]] = {page: [] for page in _PAGES}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    with closing(connection):
        for number in range(loads + 1):
            for page, path in paths.items():
                began_s = time.perf_counter()
                connection.request("GET", path)
                reply = connection.getresponse()
                reply.read()
                took_ms = (time.perf_counter() - began_s) * 1_000
                if reply.status != http.HTTPStatus.OK:
                    raise BenchmarkError(f"{path} was answered with {reply.status}")
                if number:  # the first load compiles the template
                    took[page].append(took_ms)
    return {page: sorted(times) for page, times in took.items()}


def _store(side: SystemUnderTest, documents: int) -> None:
    print_progress(f"storing {documents:,} runs")
    services = bootstrap(Settings(redis_url=side.redis_url, mongodb_url=side.mongodb_url), "worker")
    with closing(services.redis), closing(services.database):
        services.clock.sync()
        now = services.clock.now() - timedelta(seconds=1)
        insert_finished(services.database.collection("executions"), documents, now, services.timings)


def _table(took: Mapping[str, Sequence[float]], documents: int, loads: int) -> Table:
    title = (
        f"the dashboard with {documents:,} stored runs, {loads} loads of each page, ms (the aim: 95 % below {AIM_MS})"
    )
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    table.add_column("page")
    for name in ("50 %", "95 %", "highest"):
        table.add_column(name, justify="right")
    for page, times in took.items():
        shown = (_percentile(times, 0.5), _percentile(times, 0.95), times[-1])
        table.add_row(page, *(f"{each:.0f}" for each in shown))
    return table


def _percentile(times: Sequence[float], share: float) -> float:
    return times[math.ceil(share * len(times)) - 1]


if __name__ == "__main__":
    sys.exit(main())
