"""``make bench-engine``: the messages, writes and reads of a run, and whether stored runs add to its cost.

Counts are taken on the whole real stack, from Redis's own statistics and mongod's profiler. Times are those of the
store's operations, in two databases of one mongod, alternately. It fails only if something broke.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness import operation_counts, scaling
from benchmarks.harness.builds import ROOT
from benchmarks.harness.http_dialects import BUCKET
from benchmarks.harness.load_generator import BenchmarkError
from benchmarks.harness.report import print_progress
from benchmarks.harness.scaling import BenchmarkDatabase
from benchmarks.harness.systems import SystemUnderTest
from compose.embedded.group_reaper import GroupReaper
from compose.operator_error import OperatorError
from shared.errors import BucketError

FEW: Final = 1_000
_AGENTS: Final = ROOT / "benchmarks" / "agents"
_POLLS: Final = 20
_IDLE_S: Final = 2.0


def main() -> int:
    """Count, time and print; return 0, or 1 if something broke."""
    parser = argparse.ArgumentParser(prog="make bench-engine ARGS=...", description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000, help="how many stored runs are many (1000000)")
    parser.add_argument("--lives", type=int, default=300, help="how often each operation is timed (300)")
    parser.add_argument("--runs", type=int, default=20, help="the number of runs that a count is the mean of (20)")
    parser.add_argument("--only", choices=("counts", "growth"), help="one half of it")
    options = parser.parse_args()
    console = Console(width=118, highlight=False)
    try:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bucket-bench-")))
            group_reaper = stack.enter_context(GroupReaper())
            side = SystemUnderTest(BUCKET, root, group_reaper, BUCKET_AGENTS_DIR=str(_AGENTS))
            stack.callback(side.close)
            if options.only != "growth":
                side.start()
                for table in _counts(side, options.runs):
                    console.print(table)
            if options.only != "counts":
                side.run_only_stores()
                console.print(_growth(side, options.documents, options.lives))
    except (BenchmarkError, OperatorError, BucketError, RuntimeError, OSError) as broken:
        sys.stderr.write(f"bench-engine: {broken}\n{getattr(broken, 'fix', '')}\n")
        return 1
    return 0


def _counts(side: SystemUnderTest, runs: int) -> tuple[Table, Table]:
    idle = operation_counts.idle_commands(side, _IDLE_S)
    table = Table(title="What a run costs, accept included", box=box.SIMPLE, title_justify="left")
    for heading in ("a run of", "messages", "MongoDB writes", "by", "MongoDB reads", "by"):
        table.add_column(heading)
    commands = Table(title="Redis commands, those inside scripts included", box=box.SIMPLE, title_justify="left")
    commands.add_column("a run of")
    commands.add_column("commands")
    for name, body in operation_counts.WORKLOADS.items():
        operation_count = operation_counts.count_per_run(side, body, runs, idle)
        writes, reads = operation_count.writes, operation_count.reads
        cells = (f"{sum(writes.values()):.1f}", _listed(writes), f"{sum(reads.values()):.1f}", _listed(reads))
        table.add_row(name, f"{operation_count.messages:.1f}", *cells)
        commands.add_row(name, _listed(operation_count.redis))
        print_progress(f"counted {runs} runs of: {name}")
    operations, redis_commands = operation_counts.count_per_poll(
        side, operation_counts.WORKLOADS["two quick steps"], _POLLS
    )
    table.add_row("a poll of a finished run", "-", f"{operations:.1f} operations in all")
    commands.add_row("a poll of a finished run", _listed(redis_commands))
    return table, commands


def _growth(side: SystemUnderTest, documents: int, lives: int) -> Table:
    few = BenchmarkDatabase(side.redis_url, side.mongodb_url_of("few"), FEW)
    began = time.monotonic()
    many = BenchmarkDatabase(side.redis_url, side.mongodb_url_of("many"), documents)
    print_progress(f"stored {documents:,} executions in {time.monotonic() - began:.0f} s")
    with closing(few), closing(many):
        side.mongo.admin.command("fsync")
        scaling.run_alternately(few, many, lives)
        plans = many.plans()
        times = few.latencies(), many.latencies()
    return _compared(documents, times, plans)


def _compared(
    documents: int,
    times: tuple[Mapping[str, scaling.OperationLatency], Mapping[str, scaling.OperationLatency]],
    plans: Mapping[str, scaling.Plans],
) -> Table:
    table = Table(
        title=f"The store's operations in µs, median (99 %): {FEW:,} and {documents:,} stored", box=box.SIMPLE
    )
    table.title_justify = "left"
    table.add_column("operation")
    for heading in (f"{FEW:,}", f"{documents:,}", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("found by")
    for heading in ("keys", "documents"):
        table.add_column(heading, justify="right")
    few, many = times
    for operation_name, one in few.items():
        other, operation_plans = many[operation_name], plans[operation_name]
        table.add_row(
            operation_name,
            f"{one.p50_us:,.0f} ({one.p99_us:,.0f})",
            f"{other.p50_us:,.0f} ({other.p99_us:,.0f})",
            f"{other.p50_us / one.p50_us:.2f}",
            ", ".join(plan.stages for plan in operation_plans),
            str(sum(plan.keys for plan in operation_plans)),
            str(sum(plan.documents for plan in operation_plans)),
        )
    return table


def _listed(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {each:.1f}" for name, each in sorted(counts.items(), key=lambda pair: -pair[1]))


if __name__ == "__main__":
    sys.exit(main())
