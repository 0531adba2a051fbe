"""Report of the side-by-side benchmark: medians of ratios, each of two neighbouring measurements."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.measurements import Figures

# The printed measures, and whether more is better.
RATES: Final = (
    ("accept/s", True),
    ("accept p50 ms", False),
    ("accept p99 ms", False),
    ("poll 200/s", True),
    ("poll 200 p99 ms", False),
    ("poll 304/s", True),
    ("poll 304 p99 ms", False),
    ("end to end runs/s", True),
    ("end to end p50 ms", False),
    ("end to end p99 ms", False),
    ("polls a run", False),
    ("drain runs/s", True),
    ("refused", False),
)
SPANS: Final = (
    ("accept", "an accept"),
    ("poll 200", "a poll"),
    ("poll 304", "a 304 poll"),
    ("end to end", "end to end run"),
    ("drain", "a drained run"),
    ("rest", "rest, ms/s"),
)
PARTS: Final = ("API", "worker main", "worker children", "reconciler", "redis", "mongod", "in all")
_DIGITS_BELOW: Final = 20


def print_progress(text: str) -> None:
    """Print progress to stderr; only the figures go to stdout."""
    sys.stderr.write(f"bench: {text}\n")


def print_report(reference: Sequence[Figures], bucket: Sequence[Figures]) -> None:
    """Print the rates and the ratios, then the CPU by part."""
    console = Console(width=118, highlight=False)
    for table in (_rates(reference, bucket), _costs(reference, bucket)):
        console.print(table)


def _rates(reference: Sequence[Figures], bucket: Sequence[Figures]) -> Table:
    table = Table(title="Bucket beside Flask + Celery + MongoDB: medians", box=box.SIMPLE, title_justify="left")
    table.add_column("measure")
    for heading in ("reference", "Bucket", "ratio", "least", "most"):
        table.add_column(heading, justify="right")
    table.add_column("better is")
    for name, more_is_better in RATES:
        ratios = _ratios(reference, bucket, name)
        spread = (statistics.median(ratios), min(ratios), max(ratios)) if ratios else ()
        cells = [f"{ratio:.2f}" for ratio in spread] or ["-"] * 3
        better = "more" if more_is_better else "less"
        table.add_row(name, _median(reference, name), _median(bucket, name), *cells, better)
    return table


def _costs(reference: Sequence[Figures], bucket: Sequence[Figures]) -> Table:
    table = Table(title="Where the CPU goes, in µs (at rest: ms a second)", box=box.SIMPLE, title_justify="left")
    table.add_column("of")
    table.add_column("side")
    for heading in (*PARTS, "ratio"):
        table.add_column(heading, justify="right")
    for span, label in SPANS:
        names = [f"{span} CPU {part}" for part in PARTS]
        ratios = _ratios(reference, bucket, names[-1])
        ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
        table.add_row(label, "reference", *(_median(reference, name) for name in names), "")
        table.add_row("", "Bucket", *(_median(bucket, name) for name in names), ratio)
    return table


def _ratios(reference: Sequence[Figures], bucket: Sequence[Figures], name: str) -> list[float]:
    return [theirs[name] / plain[name] for plain, theirs in zip(reference, bucket, strict=True) if plain[name]]


def _median(rounds: Sequence[Figures], name: str) -> str:
    values = [figures[name] for figures in rounds if name in figures]
    if not values:
        return "-"
    value = statistics.median(values)
    return f"{value:.1f}" if value < _DIGITS_BELOW else f"{value:,.0f}"
