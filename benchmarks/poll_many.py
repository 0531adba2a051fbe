"""``python -m benchmarks.poll_many``: the CPU of one request for many runs, compared with one request for each.

It compares a poll of 500 unchanged runs with 500 polls with ``If-None-Match``, and a batch of 100 submits with 100
submits; on the whole stack, alternately. CPU is that of the API and of both stores; the worker is paused while batches
are measured. It fails only if something broke.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.cpu_time import cpu_time_by_pid
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.report import print_progress
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError

POLLS_PER_REQUEST: Final = 500
SUBMITS_PER_BATCH: Final = 100
_VIEWS_EXPIRE_AFTER_S: Final = 20.0
_PARTS: Final = ("api", "redis", "mongod")
_MS: Final = 1_000
_OK: Final = 200
_ACCEPTED: Final = 202
_NOT_MODIFIED: Final = 304


@dataclass(frozen=True, slots=True)
class Comparison:
    """Milliseconds of CPU, by part, for the same work in ``separate`` requests and ``batched``; a row a round."""

    title: str
    separate: Sequence[Mapping[str, float]]
    batched: Sequence[Mapping[str, float]]

    def ratios(self, *parts: str) -> list[float]:
        """Return how many times more CPU the separate requests need, in each round."""
        pairs = zip(self.separate, self.batched, strict=True)
        return [sum(a[part] for part in parts) / max(sum(b[part] for part in parts), 1e-9) for a, b in pairs]


class HttpClient:
    """One connection to the API."""

    def __init__(self, side: SystemUnderTest) -> None:
        self._connection = HTTPConnection(*side.address, timeout=30)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Send one request; return status and body."""
        header_fields = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if raw is not None:
            header_fields["Content-Type"] = "application/json"
        self._connection.request(method, path, raw, header_fields)
        response = self._connection.getresponse()
        return response.status, response.read()

    def expect(self, status: int, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send one request and return the parsed body; raise BenchmarkError if the status is another."""
        actual, raw = self.request(method, path, body, **headers)
        if actual != status:
            raise BenchmarkError(f"the response to {method} {path} was {actual}: {raw[:300]!r}")
        return json.loads(raw) if raw else None


def cpu_ms(side: SystemUnderTest, work: Callable[[], None], times: int) -> dict[str, float]:
    """Return the CPU in ms that each part needs for ``work``, as the mean of ``times`` calls."""
    pids = {part: side.pids()[part] for part in _PARTS}
    before = cpu_time_by_pid(pids.values())
    for _ in range(times):
        work()
    after = cpu_time_by_pid(pids.values())
    return {part: (after[pid] - before[pid]).total_s * _MS / times for part, pid in pids.items()}


def compare_polls_of_many(side: SystemUnderTest, rounds: int, times: int) -> Iterator[Comparison]:
    """Compare polls of many runs: finished and unchanged ones, the same if all have changed, and waiting ones.

    The views of runs that wait long have expired in Redis, so MongoDB is read for all of them.
    """
    client = HttpClient(side)
    ids = _create_finished_runs(client, POLLS_PER_REQUEST)
    yield from _compare_polls(side, client, ids, rounds, times)
    waiting = {"items": [dict(BUCKET.submit_body) | {"run_after_s": 3_600}] * POLLS_PER_REQUEST}
    later = [item["execution_id"] for item in client.expect(_ACCEPTED, "POST", "/run-basket/batch", waiting)["items"]]
    time.sleep(_VIEWS_EXPIRE_AFTER_S)
    unchanged, _ = _compare_polls(side, client, later, rounds, max(times // 4, 1))
    yield replace(unchanged, title=f"{POLLS_PER_REQUEST} polls, waiting")


def _compare_polls(
    side: SystemUnderTest, client: HttpClient, ids: Sequence[str], rounds: int, times: int
) -> Iterator[Comparison]:
    revs = {each: client.expect(_OK, "GET", f"/execution-logs/{each}")["rev"] for each in ids}
    tags = [(f"/execution-logs/{each}", f'W/"{each}.{rev}"') for each, rev in revs.items()]
    with_revs = json.dumps({"items": [{"execution_id": each, "rev": rev} for each, rev in revs.items()]}).encode()
    without_revs = json.dumps({"items": [{"execution_id": each} for each in ids]}).encode()
    response = client.expect(_OK, "POST", "/executions/poll", with_revs)
    if (response["unchanged"], response["changed"], response["not_found"]) != (POLLS_PER_REQUEST, [], []):
        raise BenchmarkError(f"a poll of {POLLS_PER_REQUEST} unchanged runs had the response {str(response)[:300]}")

    def one_by_one() -> None:
        for path, tag in tags:
            client.expect(_NOT_MODIFIED, "GET", path, If_None_Match=tag)

    def one_by_one_whole() -> None:
        for path, _ in tags:
            client.request("GET", path)

    def at_once(body: bytes) -> Callable[[], None]:
        return lambda: client.request("POST", "/executions/poll", body) and None

    yield _compare(f"{POLLS_PER_REQUEST} polls, unchanged", side, one_by_one, at_once(with_revs), rounds, times)
    yield _compare(
        f"{POLLS_PER_REQUEST} polls, all changed", side, one_by_one_whole, at_once(without_revs), rounds, times
    )


def compare_batches(side: SystemUnderTest, rounds: int, times: int) -> Comparison:
    """Compare a batch of submits with as many separate submits."""
    client = HttpClient(side)
    item = dict(BUCKET.submit_body)
    raw, batch = json.dumps(item).encode(), json.dumps({"items": [item] * SUBMITS_PER_BATCH}).encode()

    def one_by_one() -> None:
        for _ in range(SUBMITS_PER_BATCH):
            client.expect(_ACCEPTED, "POST", "/run-basket", raw)

    def at_once() -> None:
        response = client.expect(_ACCEPTED, "POST", "/run-basket/batch", batch)
        if response["accepted"] != SUBMITS_PER_BATCH:
            raise BenchmarkError(
                f"of a batch {response['rejected']} items were refused: {str(response['items'][0])[:300]}"
            )

    with side.paused_worker():
        return _compare(f"{SUBMITS_PER_BATCH} submits", side, one_by_one, at_once, rounds, max(times // 10, 1))


def _compare(  # noqa: PLR0917
    title: str,
    side: SystemUnderTest,
    separate: Callable[[], None],
    batched: Callable[[], None],
    rounds: int,
    times: int,
) -> Comparison:
    separate_costs, batched_costs = [], []
    separate(), batched()
    for _ in range(rounds):
        separate_costs.append(cpu_ms(side, separate, max(times // 50, 1)))
        batched_costs.append(cpu_ms(side, batched, times))
        print_progress(f"measured: {title}")
    return Comparison(title, separate_costs, batched_costs)


def _create_finished_runs(client: HttpClient, total: int) -> list[str]:
    ids = []
    while len(ids) < total:
        ids.append(client.expect(_ACCEPTED, "POST", "/run-basket", dict(BUCKET.submit_body))["execution_id"])
    for each in ids:
        while not client.expect(_OK, "GET", f"/execution-logs/{each}")["done"]:
            pass
    return ids


def table_of(measures: Sequence[Comparison]) -> Table:
    """Build the table of results: medians of the rounds, and the ratio with its minimum and maximum."""
    table = Table(title="CPU in ms, median of the rounds", box=box.SIMPLE, title_justify="left")
    for heading in ("", "API", "redis", "mongod", "API + redis"):
        table.add_column(heading, justify="right" if heading else "left")
    for measure in measures:
        for name, rows in (("one by one", measure.separate), ("in one request", measure.batched)):
            middles = {part: statistics.median(row[part] for row in rows) for part in _PARTS}
            both = middles["api"] + middles["redis"]
            table.add_row(f"{measure.title}, {name}", *(f"{middles[part]:.2f}" for part in _PARTS), f"{both:.2f}")
        for parts in (("api", "redis"), _PARTS):
            ratios = measure.ratios(*parts)
            ratio = f"{statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})"
            table.add_row(f"  times cheaper, {' + '.join(parts)}", "", "", "", ratio)
    return table


def main() -> int:
    """Measure and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.poll_many", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured, alternately (5)")
    parser.add_argument(
        "--times", type=int, default=200, help="the number of requests that a figure is the mean of (200)"
    )
    parser.add_argument("--only", choices=("polls", "batches"), help="one half of it")
    parser.add_argument("--quick", action="store_true", help="a short form")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.times = 2, 20
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            side = SystemUnderTest(BUCKET, root, stack.enter_context(GroupReaper()))
            stack.callback(side.close)
            side.start()
            measures = (
                list(compare_polls_of_many(side, options.rounds, options.times)) if options.only != "batches" else []
            )
            if options.only != "polls":
                measures.append(compare_batches(side, options.rounds, options.times))
    except (BenchmarkError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"poll_many: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    Console(width=110, highlight=False).print(table_of(measures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
