"""``python -m benchmarks.trust``: the cost of a key, of limits and of the audit, beside the same build without them.

Three APIs share a Redis and a MongoDB: one with ``BUCKET_AUTH=off``, one that is used with ten keys, and one with
10,000. Each round starts them anew, because two processes of the same code differ for as long as they live, and
measures all of them in turn. Costs are CPU of the API's process for each request, from /proc. It fails only if
something broke.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from api.auth.key_service import KeyService
from benchmarks.harness.balanced_connections import opened_evenly
from benchmarks.harness.cpu_time import children_of, cpu_time_by_pid
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError, LoadGenerator, Scenario
from benchmarks.harness.report import print_progress
from benchmarks.harness.scenarios import LoadResult, poll_repeatedly, submit_and_poll
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded import api_port, bucket_process_plans
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.operator_error import OperatorError
from shared.bootstrap import bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.errors import BucketError
from shared.settings import Settings

FEW: Final = 10
MANY: Final = 10_000
_OFF: Final = "no keys"
_FEW: Final = "few keys"
_MANY: Final = "many keys"
_PEPPER: Final = "a pepper for a benchmark, which protects nothing"
_HIGH: Final = '{"per_s": 1000000, "burst": 1000000}'
_SETTINGS: Final = {
    "BUCKET_AUTH": "required",
    "BUCKET_KEY_PEPPER": _PEPPER,
    "BUCKET_LIMITS": f'{{"submit": {_HIGH}, "poll": {_HIGH}, "list": {_HIGH}, "admin": {_HIGH}}}',
}
_CALLERS: Final = 16
_WARM_UP_S: Final = 0.5
_TURNS: Final = 8
"""How often all sides are measured with the same processes, in both orders; often and shortly, against noise."""
_OK, _ACCEPTED = 200, 202
_US: Final = 1_000_000

Costs = dict[tuple[str, str], list[float]]
"""µs of CPU a request, by what was requested and side; a figure for each round."""


@dataclass(slots=True)
class Side:
    """One API, and the keys of its callers; none if it requires none."""

    name: str
    child: Child
    address: tuple[str, int]
    keys: Sequence[str] = ()

    def requests(self, request: bytes) -> list[bytes]:
        """Return the request of each caller."""
        before, line, rest = request.partition(b"Host: bench\r\n")
        fields = (f"Authorization: Bearer {key}\r\n".encode() for key in self.keys)
        return [before + line + field + rest for field in fields] or [request]

    def restart(self) -> None:
        """Start the process anew."""
        self.child.kill()
        self.child.start()

    def wait_ready(self) -> None:
        """Wait until the API replies, and its process is there."""
        self.child.wait_ready()

    def warm_up(self, poll: bytes, submit: bytes) -> None:
        """Send a poll with each of the keys, and then both kinds for a moment."""
        polls = self.requests(poll)
        shares = [polls[number::_CALLERS] for number in range(_CALLERS)]
        with self._connections() as connections:
            LoadGenerator().run(connections, [_send_each(share) for share in shares])
        for request, status in ((poll, _OK), (submit, _ACCEPTED)):
            self.cost_us(request, status, _WARM_UP_S)

    def cost_us(self, request: bytes, status: int, seconds: float) -> float:
        """Return µs of CPU for a request that all callers send in turn for ``seconds``."""
        load = LoadResult()
        requests = self.requests(request)
        # Each connection begins with another key, so that all keys are in use.
        starts = [number * len(requests) // _CALLERS for number in range(_CALLERS)]
        turned = [requests[start:] + requests[:start] for start in starts]
        pid = self.child.pid or 0
        with self._connections() as connections:
            before, until = cpu_time_by_pid([pid])[pid], time.perf_counter() + seconds
            LoadGenerator().run(connections, [poll_repeatedly(each, load, until, status) for each in turned])
            used = cpu_time_by_pid([pid])[pid] - before
        if not load.latencies:
            raise BenchmarkError(f"{self.name}: no response within {seconds:g} s")
        return used.total_s * _US / len(load.latencies)

    def _connections(self) -> AbstractContextManager[list[socket.socket]]:
        return opened_evenly(self.address, _CALLERS, children_of(self.child.pid or 0))


def _send_each(requests: Sequence[bytes]) -> Scenario:
    for request in requests:
        response = yield request
        if response is None or response.status != _OK:
            raise BenchmarkError(f"the response to a poll was {response}")


def measure(system: SystemUnderTest, sides: Sequence[Side], poll: bytes, *, rounds: int, seconds: float) -> Costs:
    """Return the costs of polls and submits on each side."""
    costs: Costs = defaultdict(list)
    submit = BUCKET.submit()
    for number in range(rounds):
        for side in sides:
            side.restart()
        for side in sides:
            side.wait_ready()
        with system.paused_worker():
            for side in sides:
                side.warm_up(poll, submit)
            figures: Costs = defaultdict(list)
            for turn in range(_TURNS):
                for side in _in_order(sides, number + turn):
                    figures["poll", side.name].append(side.cost_us(poll, _OK, seconds))
                    figures["submit", side.name].append(side.cost_us(submit, _ACCEPTED, seconds))
            system.redis.delete(*system.dialect.queues)  # nobody needs these runs
        for name, found in figures.items():
            costs[name].append(statistics.median(found))
        print_progress(f"round {number + 1} of {rounds}")
    return costs


def _in_order(sides: Sequence[Side], number: int) -> Sequence[Side]:
    return sides if number % 2 == 0 else sides[::-1]


def table_of(costs: Costs, keys: int) -> Table:
    """Build the table of results: medians of the rounds, and of the ratios of each round with their extremes."""
    table = Table(title="What keys, limits and the audit cost the API", box=box.SIMPLE, title_justify="left")
    for heading in ("measure", "µs of CPU a request", "ratio (least to most)", "wanted"):
        table.add_column(heading)
    for request, side, other, title, wanted in (
        ("poll", _FEW, _OFF, f"a poll with a key: {FEW} keys / off", "at most 1.05"),
        ("submit", _FEW, _OFF, f"a submit with key, limit and audit: {FEW} keys / off", "at most 1.10"),
        ("poll", _MANY, _FEW, f"a poll: {keys:,} keys / {FEW}", "about 1"),
        ("submit", _MANY, _FEW, f"a submit: {keys:,} keys / {FEW}", "about 1"),
    ):
        ones, others = costs[request, side], costs[request, other]
        ratios = [one / another for one, another in zip(ones, others, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(title, f"{statistics.median(ones):,.0f} / {statistics.median(others):,.0f}", spread, wanted)
    return table


def _create_keys(system: SystemUnderTest, total: int) -> list[str]:
    """Create keys of the integrator whose runs a caller without a key sees too."""
    settings = Settings(redis_url=system.redis_url, mongodb_url=system.mongodb_url, auth="required", key_pepper=_PEPPER)
    services = bootstrap(settings, "api")
    service, request = KeyService(services), KeyRequest(Role.INTEGRATOR, PUBLIC_INTEGRATOR)
    with closing(services.database), closing(services.redis), ThreadPoolExecutor(_CALLERS) as pool:
        return list(pool.map(lambda _: str(service.create(request, "bench")["key"]), range(total)))


def _finished_run(system: SystemUnderTest) -> str:
    load = LoadResult()
    with opened_evenly(system.address, 1, system.api_pids()) as connections:
        LoadGenerator().run(connections, [submit_and_poll(BUCKET, load, time.perf_counter() + 0.01)])
    return load.ids[0]


def _start_sides(
    system: SystemUnderTest, keys: Sequence[str], stack: ExitStack, root: Path, reaper: GroupReaper
) -> Iterator[Side]:
    plan = system.children["api"].plan
    for name, given in ((_OFF, ()), (_FEW, keys[:FEW]), (_MANY, keys)):
        address = ("127.0.0.1", api_port.pick_port("127.0.0.1", 0))
        env = dict(plan.env) | {
            "PORT": str(address[1]),
            "PROMETHEUS_MULTIPROC_DIR": str(root / f"metrics of {name}"),
            "BUCKET_API_PROCESSES": "1",
        }
        api = bucket_process_plans.api_plan(api_port.local_url(*address), env | (_SETTINGS if given else {}))
        child = Child(replace(api, name=name), root / f"{name}.log", reaper)
        stack.callback(child.kill)
        yield Side(name, child, address, given)


def main() -> int:
    """Measure and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often all are measured, on new processes (7)")
    parser.add_argument("--seconds", type=float, default=0.3, help="how long each time (0.3)")
    parser.add_argument("--keys", type=int, default=MANY, help=f"how many keys are many ({MANY})")
    parser.add_argument("--quick", action="store_true", help="a short form")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.keys = 2, 0.1, min(options.keys, 1_000)
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            reaper = stack.enter_context(GroupReaper())
            system = SystemUnderTest(BUCKET, root / "bucket", reaper)
            stack.callback(system.close)
            system.start()
            poll = BUCKET.poll(_finished_run(system))
            system.children["api"].stop()  # the sides have their own
            sides = list(_start_sides(system, _create_keys(system, options.keys), stack, root, reaper))
            costs = measure(system, sides, poll, rounds=options.rounds, seconds=options.seconds)
    except (BenchmarkError, OperatorError, BucketError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"trust: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    Console(width=118, highlight=False).print(table_of(costs, options.keys))
    return 0


if __name__ == "__main__":
    sys.exit(main())
