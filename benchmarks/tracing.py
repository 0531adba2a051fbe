"""``python -m benchmarks.tracing``: what tracing costs a run, in CPU, by pairs.

Systems with tracing off and with every trace exported run side by side, with ``--beside`` an older build too. Each
round starts them anew, because two processes of the same code differ for as long as they live; then they accept and
drain the same number of runs in turns, in both orders. The receiver is a process of its own and is not counted. The
first ratio is of all that a run costs, the second without Redis and MongoDB. It fails only if something broke.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.harness.builds import THIS_BUILD, Build
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.measurements import burst
from benchmarks.harness.report import print_progress
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError

_OFF: Final = "off"
_ON: Final = "on, all traces"
_BEFORE: Final = "build before"
_SERVERS: Final = frozenset({"redis", "mongod"})
_TURNS: Final = 6
"""How often all are measured with the same processes; often and shortly, against noise."""

Cost = tuple[float, ...]
"""µs of CPU of a run: in all, and without the servers."""


class _Receiver(BaseHTTPRequestHandler):
    """Takes exports and forgets them."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the request and reply that all is well."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def _receive(port: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    port.send(server.server_port)
    server.serve_forever()


def _cost_us(system: SystemUnderTest, runs: int) -> Cost:
    in_all = servers = 0.0
    for name, cost in burst(system, runs).items():
        part = name.partition(" CPU ")[2]
        in_all += cost if part == "in all" else 0.0
        servers += cost if part in _SERVERS else 0.0
    return in_all, in_all - servers


def measure(systems: dict[str, SystemUnderTest], *, turns: int, runs: int) -> dict[str, Cost]:
    """Return the µs of CPU of a run in each system, the mean of ``turns`` measurements."""
    costs: dict[str, list[Cost]] = {name: [] for name in systems}
    for system in systems.values():
        burst(system, runs)  # warms up
    for number in range(turns):
        names: Sequence[str] = list(systems) if number % 2 == 0 else list(systems)[::-1]
        for name in names:
            costs[name].append(_cost_us(systems[name], runs))
    return {name: tuple(map(statistics.fmean, zip(*each, strict=True))) for name, each in costs.items()}


def _measure_anew(builds: dict[str, Build], receiver_port: int, *, turns: int, runs: int) -> dict[str, Cost]:
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
        reaper = stack.enter_context(GroupReaper())
        systems = {}
        for number, (name, build) in enumerate(builds.items()):
            endpoint = f"http://127.0.0.1:{receiver_port}" if name == _ON else ""
            system = SystemUnderTest(
                BUCKET, root / str(number), reaper, build=build, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint
            )
            stack.callback(system.close)
            system.start()
            systems[name] = system
        return measure(systems, turns=turns, runs=runs)


def _print(costs: dict[str, list[Cost]]) -> None:
    console = Console(width=118, highlight=False)
    for name, other in ((_ON, _OFF), (_OFF, _BEFORE)):
        for index, counted in enumerate(("in all", "without Redis and MongoDB")):
            if name not in costs or other not in costs:
                continue
            ours, theirs = ([cost[index] for cost in costs[side]] for side in (name, other))
            ratios = [one / another for one, another in zip(ours, theirs, strict=True)]
            medians = f"{statistics.median(ours):,.0f} / {statistics.median(theirs):,.0f} µs"
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            console.print(f"tracing {name} / {other}, CPU a run {counted}: {medians}, ratio {spread}")


def main() -> int:
    """Measure and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often all are started anew and measured (7)")
    parser.add_argument("--runs", type=int, default=500, help="runs a turn (500)")
    parser.add_argument("--beside", type=Path, help="a checkout of a build before, with its .venv")
    parser.add_argument("--quick", action="store_true", help="a short form")
    options = parser.parse_args()
    turns = _TURNS
    if options.quick:
        options.rounds, turns = 2, 2
    builds = {_OFF: THIS_BUILD, _ON: THIS_BUILD}
    costs: dict[str, list[Cost]] = {}
    port, child_port = multiprocessing.Pipe(duplex=False)
    receiver = multiprocessing.Process(target=_receive, args=(child_port,), daemon=True)
    receiver.start()
    try:
        if options.beside is not None:
            builds[_BEFORE] = Build.at(options.beside)
        receiver_port = port.recv()
        for number in range(options.rounds):
            for name, cost in _measure_anew(builds, receiver_port, turns=turns, runs=options.runs).items():
                costs.setdefault(name, []).append(cost)
            print_progress(f"round {number + 1} of {options.rounds}")
    except (BenchmarkError, OperatorError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"tracing: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    finally:
        receiver.terminate()
    _print(costs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
