"""``python -m benchmarks.polling``: the cost of a poll, as ratios measured alternately; the wake-up of a long poll.

The baseline is a Flask application of one route that sends the value of one Redis GET, under the same gunicorn settings
and on the same Redis. Costs are CPU of the API's processes for each request, read from /proc: they drift less than
rates. It fails only if something broke.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson
from bson import Timestamp
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness import sample_executions
from benchmarks.harness.balanced_connections import opened_evenly
from benchmarks.harness.builds import ROOT
from benchmarks.harness.cpu_time import children_of, cpu_time_by_pid
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import ETAG_HEADER, BenchmarkError, LoadGenerator, Scenario
from benchmarks.harness.report import print_progress
from benchmarks.harness.scenarios import LoadResult, poll_repeatedly
from benchmarks.harness.systems import API_PROCESSES, SystemUnderTest
from compose.embedded import api_port, bucket_process_plans
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.operator_error import OperatorError
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import PUBLIC_INTEGRATOR, LogPageQuery
from shared.errors import BucketError
from shared.live.views import view_key
from shared.settings import Settings

MANY: Final = 1_000_000
FEW: Final = 1_000
_CALLERS: Final = 16
_KEY: Final = "constant"  # of benchmarks.reference.baseline_app, which only its server may import
_LONG_LOG: Final = 1_000
_SHORT_LOG: Final = 10
_WAKE_UPS: Final = 100
_PAGE: Final = LogPageQuery(after=0, limit=5)
_FINISHED: Final = re.compile(rb'"finished_at":"([^"]+)"')
_OK, _ACCEPTED, _NOT_MODIFIED = 200, 202, 304
_MS, _US = 1_000, 1_000_000

TableRow = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Server:
    """The address of a gunicorn, and the id of its main process."""

    address: tuple[str, int]
    pid: int


@dataclass(frozen=True, slots=True)
class RequestSample:
    """The result of one sample: µs of the server's CPU for one request, and responses a second."""

    cost_us: float
    rate: float


@dataclass(frozen=True, slots=True)
class RepeatedRequest:
    """One request that is sent repeatedly, and the status that its response must have."""

    server: Server
    request: bytes
    status: int = _OK

    def sample(self, seconds: float) -> RequestSample:
        """Send the request for ``seconds``, from all users at once."""
        load = LoadResult()
        with opened_evenly(self.server.address, _CALLERS, children_of(self.server.pid)) as connections:
            before = cpu_time_by_pid([self.server.pid])[self.server.pid]
            began = time.perf_counter()
            LoadGenerator().run(
                connections, [poll_repeatedly([self.request], load, began + seconds, self.status) for _ in connections]
            )
            took_s = time.perf_counter() - began
            used = cpu_time_by_pid([self.server.pid])[self.server.pid] - before
        return RequestSample(used.total_s * _US / len(load.latencies), len(load.latencies) / took_s)


def sample_alternately(
    first: RepeatedRequest, second: RepeatedRequest, rounds: int, seconds: float
) -> list[tuple[RequestSample, RequestSample]]:
    """Return the samples of both in each round, after a warm-up round, which fills caches and opens connections."""
    pairs = []
    for number in range(rounds + 1):
        one, other = (first, second) if number % 2 == 0 else (second, first)
        turns = one.sample(seconds), other.sample(seconds)
        pairs.append(turns if number % 2 == 0 else turns[::-1])
    return pairs[1:]


def compare_samples(
    pairs: Sequence[tuple[RequestSample, RequestSample]], of: Callable[[RequestSample], float]
) -> tuple[float, float, float]:
    """Return the median of a figure for each of both, and the median of the ratios first/second."""
    figures = [(of(one), of(other)) for one, other in pairs]
    ones, others = zip(*figures, strict=True)
    return statistics.median(ones), statistics.median(others), statistics.median(a / b for a, b in figures)


class PollBenchmark:
    """One running stack, and the baseline application beside it."""

    def __init__(
        self, side: SystemUnderTest, baseline: Server, services: Services, rounds: int, seconds: float
    ) -> None:
        self._side = side
        self._baseline = baseline
        self._services = services
        self._rounds = rounds
        self._seconds = seconds
        self._bucket = Server(side.address, side.pids()["api"])
        self._run = _finished_run(side)

    def compare_to_baseline(self) -> list[TableRow]:
        """Compare a poll of a finished run with a constant of as many bytes."""
        self._side.redis.set(_KEY, self._side.redis.get(view_key(PUBLIC_INTEGRATOR, self._run)) or b"")
        constant = RepeatedRequest(self._baseline, b"GET /constant HTTP/1.1\r\nHost: bench\r\n\r\n")
        poll = self._poll(self._run)
        pairs = sample_alternately(poll, constant, self._rounds, self._seconds)
        rates, costs = (
            compare_samples(pairs, lambda turn: turn.rate),
            compare_samples(pairs, lambda turn: 1 / turn.cost_us),
        )
        name = "poll of a finished run / constant"
        return [
            _line(f"{name}: answers a second", *rates, "at least 0.80"),
            _line(f"{name}: the same, by CPU", 1 / costs[0], 1 / costs[1], costs[2], "-"),
        ]

    def compare_not_modified(self) -> TableRow:
        """Compare a 304 with a 200 of the same run."""
        etag = _matched_header(self._side, BUCKET.poll(self._run), ETAG_HEADER)
        known = RepeatedRequest(self._bucket, BUCKET.poll(self._run, etag), _NOT_MODIFIED)
        return self._line("304 / 200", known, self._poll(self._run), "at most 1.00")

    def compare_log_lengths(self) -> list[TableRow]:
        """Compare a short log with a long one: a poll for the newest lines, and a page from MongoDB."""
        short, long = self._with_log(_SHORT_LOG), self._with_log(_LONG_LOG)
        tail = "?limit=5"
        polls = self._poll(long, tail), self._poll(short, tail)
        heading = f"poll?limit=5: a log of {_LONG_LOG:,} lines / of {_SHORT_LOG}"
        read = [self._read_us(long), self._read_us(short)]
        return [
            self._line(heading, *polls, "-"),
            self._line(
                f"poll: a log of {_LONG_LOG:,} / of 100, both with 100 lines in the view",
                self._poll(long), self._poll(self._with_log(100)), "about 1",
            ),
            _line(f"a page from MongoDB: {_LONG_LOG:,} lines / {_SHORT_LOG} (wall)", *read, read[0] / read[1], "-"),
        ]  # fmt: skip

    def compare_store_sizes(self, many: int) -> list[TableRow]:
        """Compare polls with few and with many stored executions, from Redis and from MongoDB."""
        paged = self._with_log(_LONG_LOG)
        requests = {"poll": self._poll(self._run), "poll of a page in MongoDB": self._poll(paged, "?after=0&limit=5")}
        self._fill(FEW)
        few = {name: self._median(each) for name, each in requests.items()}
        self._fill(many - FEW)
        print_progress(f"stored {many:,} executions")
        lines = []
        for name, each in requests.items():
            cost = self._median(each)
            lines.append(_line(f"{name}: {many:,} / {FEW:,} stored", cost, few[name], cost / few[name], "about 1"))
        return lines

    def wake_up_latency(self, times: int) -> TableRow:
        """Measure how long after ``finished_at``, which precedes the last write, a long poll has its response."""
        late_ms: list[float] = []
        for _ in range(times):
            _run_scenarios(self._side, _long_poll_scenario(late_ms))
        cuts = statistics.quantiles(late_ms, n=100)
        latency = f"{cuts[49]:,.1f} ms, 99 % {cuts[98]:,.1f} ms"
        return "a held poll has the response after the end of its run", latency, "-", "at most 50 ms"

    def _median(self, repeated: RepeatedRequest) -> float:
        return statistics.median(repeated.sample(self._seconds).cost_us for _ in range(self._rounds))

    def _poll(self, run_id: str, query: str = "") -> RepeatedRequest:
        return RepeatedRequest(self._bucket, BUCKET.poll(run_id + query))

    def _line(self, name: str, first: RepeatedRequest, second: RepeatedRequest, target: str) -> TableRow:
        pairs = sample_alternately(first, second, self._rounds, self._seconds)
        return _line(name, *compare_samples(pairs, lambda turn: turn.cost_us), target)

    def _fill(self, total: int) -> None:
        executions = self._services.database.collection("executions")
        sample_executions.insert_finished(executions, total, self._services.clock.now(), self._services.timings)

    def _with_log(self, lines: int) -> str:
        """Create a copy of the finished run with a log of ``lines`` lines; return its id."""
        executions = self._side.mongo.get_default_database().executions
        document = executions.find_one({"_id": self._run})
        if document is None:
            raise BenchmarkError(f"{self._run} is gone")
        run_id = f"{self._run[:-4]}{lines:04x}"
        events = (document["events"] * lines)[:lines]
        copy = document | {"_id": run_id, "events": events, "lines": lines, "stored_at": Timestamp(0, 0)}
        executions.replace_one({"_id": run_id}, copy, upsert=True)
        _matched_header(self._side, BUCKET.poll(run_id), ETAG_HEADER)  # the first poll writes the view
        return run_id

    def _read_us(self, run_id: str) -> float:
        times = []
        for _ in range(300):
            began = time.perf_counter()
            self._services.store.read(PUBLIC_INTEGRATOR, run_id, page=_PAGE)
            times.append(time.perf_counter() - began)
        return statistics.median(times) * _US


def _line(name: str, first: float, second: float, ratio: float, target: str) -> TableRow:
    return name, f"{first:,.0f} / {second:,.0f}", f"{ratio:.2f}", target


def _long_poll_scenario(late_ms: list[float]) -> Scenario:
    """Submit a short run, wait for its end by a long poll, and record how late the response was, in ms."""
    body = b'{"agent_name":"napper","input_data":{"a":1}}'
    head = f"POST /run-agent HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    response = yield f"{head}\r\n\r\n".encode() + body
    if response is None or response.status != _ACCEPTED:
        raise BenchmarkError(f"the response to a submit was {response}")
    response = yield BUCKET.poll(f"{orjson.loads(response.body)['execution_id']}?wait=20&until=done")
    now = datetime.now(UTC)  # the store's clock is that of this machine
    match = None if response is None else _FINISHED.search(response.body)
    if match is None:
        raise BenchmarkError(f"the response to a long poll was {response}")
    late_ms.append((now - datetime.fromisoformat(match[1].decode())).total_seconds() * _MS)


def _finished_run(side: SystemUnderTest) -> str:
    run_ids: list[str] = []

    def flow() -> Scenario:
        response = yield BUCKET.submit()
        if response is None or response.status != _ACCEPTED:
            raise BenchmarkError(f"the response to a submit was {response}")
        run_id = str(orjson.loads(response.body)["execution_id"])
        while response is None or not BUCKET.is_done(response.body):
            yield 0.05
            response = yield BUCKET.poll(run_id)
        run_ids.append(run_id)

    _run_scenarios(side, flow())
    return run_ids[0]


def _matched_header(side: SystemUnderTest, request: bytes, pattern: re.Pattern[bytes]) -> str:
    values: list[str] = []

    def flow() -> Scenario:
        response = yield request
        match = None if response is None else pattern.search(response.head)
        if match is None:
            raise BenchmarkError(f"the response to {request!r} was {response}")
        values.append(match[1].decode())

    _run_scenarios(side, flow())
    return values[0]


def _run_scenarios(side: SystemUnderTest, *flows: Scenario) -> None:
    with opened_evenly(side.address, len(flows), side.api_pids()) as connections:
        LoadGenerator().run(connections, flows)


def run(
    side: SystemUnderTest, baseline: Server, console: Console, *, documents: int, rounds: int, seconds: float
) -> None:
    """Take all measurements and print the ratios."""
    services = bootstrap(Settings(redis_url=side.redis_url, mongodb_url=side.mongodb_url), "worker")
    bench = PollBenchmark(side, baseline, services, rounds, seconds)
    table = Table(title="What a poll costs", box=box.SIMPLE, title_justify="left")
    for heading in ("measure", "µs of CPU a request", "ratio", "wanted"):
        table.add_column(heading)
    parts: Sequence[Callable[[], TableRow | list[TableRow]]] = (
        bench.compare_to_baseline,
        bench.compare_not_modified,
        lambda: bench.wake_up_latency(_WAKE_UPS),
        bench.compare_log_lengths,
        lambda: bench.compare_store_sizes(documents),
    )
    for part in parts:
        lines = part()
        for line in lines if isinstance(lines, list) else [lines]:
            table.add_row(*line)
            print_progress(": ".join(line[:3]))
    console.print(table)


def _start_baseline(side: SystemUnderTest, stack: ExitStack, root: Path, group_reaper: GroupReaper) -> Server:
    """Start the baseline application under Bucket's own gunicorn settings."""
    number = api_port.pick_port("127.0.0.1", 0)
    url = api_port.local_url("127.0.0.1", number)
    api = side.children["api"].plan
    argv = tuple("benchmarks.reference.baseline_app:app" if part == "api.wsgi:app" else part for part in api.argv)
    env = dict(api.env) | {"PORT": str(number), "PROMETHEUS_MULTIPROC_DIR": str(root / "floor")}
    side.redis.set(_KEY, b"{}")
    plan = replace(
        api, name="floor", argv=argv, env=env, ready=lambda: bucket_process_plans.fetch_json(f"{url}/constant") == {}
    )
    child = Child(plan, root / "floor.log", group_reaper)
    stack.callback(child.kill)
    child.start()
    child.wait_ready()
    while len(children_of(child.pid or 0)) < API_PROCESSES:
        time.sleep(0.05)
    return Server(("127.0.0.1", number), child.pid or 0)


def main() -> int:
    """Measure and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polling", description=__doc__)
    parser.add_argument("--documents", type=int, default=MANY, help=f"how many stored runs are many ({MANY})")
    parser.add_argument("--rounds", type=int, default=15, help="how often each pair is measured (15)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each time (1)")
    parser.add_argument("--quick", action="store_true", help="a short form")
    options = parser.parse_args()
    if options.quick:
        options.documents, options.rounds, options.seconds = min(options.documents, 20_000), 4, 0.4
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            group_reaper = stack.enter_context(GroupReaper())
            side = SystemUnderTest(
                BUCKET, root / "bucket", group_reaper, BUCKET_AGENTS_DIR=str(ROOT / "benchmarks" / "agents")
            )
            stack.callback(side.close)
            side.start()
            baseline = _start_baseline(side, stack, root, group_reaper)
            console = Console(width=118, highlight=False)
            run(side, baseline, console, documents=options.documents, rounds=options.rounds, seconds=options.seconds)
    except (BenchmarkError, OperatorError, BucketError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"polling: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
