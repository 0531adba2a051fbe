"""Report of the side-by-side benchmark: medians of ratios, each of two measurements of one round."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.measurements import Figures

REFERENCE: Final = "reference"
THIS_BUILD: Final = "this build"
OTHER_BUILD: Final = "other build"


@dataclass(frozen=True, slots=True)
class Measure:
    """One printed figure; the reference has it under ``reference_name``, if it differs."""

    name: str
    more_is_better: bool = False
    reference_name: str | None = None

    def of(self, side: str, figures: Figures) -> float | None:
        """Return the figure of a side in one round; None if the side has none."""
        return figures.get(self.reference_name or self.name if side == REFERENCE else self.name)


MEASURES: Final = (
    Measure("accept/s", more_is_better=True),
    Measure("accept p50 ms"),
    Measure("accept p99 ms"),
    Measure("poll 200/s", more_is_better=True),
    Measure("poll 200 p99 ms"),
    Measure("poll 304/s", more_is_better=True),
    Measure("poll 304 p99 ms"),
    Measure("end to end runs/s", more_is_better=True),
    Measure("end to end p50 ms"),
    Measure("end to end p99 ms"),
    Measure("end to end polls a run"),
    # The reference has no held submit: its callers get the result by polls.
    Measure("one call runs/s", more_is_better=True, reference_name="end to end runs/s"),
    Measure("one call p50 ms", reference_name="end to end p50 ms"),
    Measure("one call polls a run", reference_name="end to end polls a run"),
    Measure("lone caller p50 ms"),
    Measure("drain runs/s", more_is_better=True),
    Measure("refused"),
    Measure("rest, % of a core"),
    Measure("API PSS, MB"),
    Measure("worker PSS, MB"),
)
# The spans whose CPU is printed, and the reference's span, if it differs.
SPANS: Final = (
    ("accept", "an accept", None),
    ("poll 200", "a poll", None),
    ("poll 304", "a 304 poll", None),
    ("end to end", "end to end run", None),
    ("one call", "one-call run", "end to end"),
    ("lone caller", "lone caller's run", None),
    ("drain", "a drained run", None),
    ("rest", "rest, ms/s", None),
)
PARTS: Final = ("API", "worker main", "worker children", "reconciler", "redis", "mongod", "in all")
_TWO_DIGITS_BELOW: Final = 1
_ONE_DIGIT_BELOW: Final = 20
_WIDTH: Final = 150

Rounds = Mapping[str, Sequence[Figures]]


def print_progress(text: str) -> None:
    """Print progress to stderr; only the figures go to stdout."""
    sys.stderr.write(f"bench: {text}\n")


def print_report(rounds: Rounds) -> None:
    """Print the figures of each side with their ratios, then the CPU by part; ``rounds`` has the figures by side."""
    console = Console(width=_WIDTH, highlight=False)
    for table in (_measures(rounds), _costs(rounds)):
        console.print(table)


def ratios(rounds: Rounds, measure: Measure, side: str, to: str = REFERENCE) -> list[float]:
    """Return the ratio of ``side`` to the side ``to`` in each round that has both figures."""
    pairs = [
        (measure.of(side, figures), measure.of(to, others))
        for figures, others in zip(rounds[side], rounds[to], strict=True)
    ]
    return [figure / other for figure, other in pairs if figure is not None and other]


def _measures(rounds: Rounds) -> Table:
    table = Table(title="Bucket beside Flask + Celery + MongoDB: medians", box=box.SIMPLE, title_justify="left")
    table.add_column("measure")
    others = [side for side in rounds if side != REFERENCE]
    headings = [REFERENCE, *(heading for side in others for heading in (side, "ratio (least to most)"))]
    if OTHER_BUILD in rounds:
        headings.append("this to other build")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("better is")
    for measure in MEASURES:
        cells = [_median(rounds, measure, REFERENCE)]
        for side in others:
            cells += [_median(rounds, measure, side), _spread(ratios(rounds, measure, side))]
        if OTHER_BUILD in rounds:
            cells.append(_spread(ratios(rounds, measure, THIS_BUILD, OTHER_BUILD)))
        table.add_row(measure.name, *cells, "more" if measure.more_is_better else "less")
    return table


def _costs(rounds: Rounds) -> Table:
    table = Table(title="Where the CPU goes, in µs (at rest: ms a second)", box=box.SIMPLE, title_justify="left")
    table.add_column("of")
    table.add_column("side")
    for heading in (*PARTS, "ratio"):
        table.add_column(heading, justify="right")
    for span, label, of_reference in SPANS:
        measures = [
            Measure(f"{span} CPU {part}", reference_name=f"{of_reference or span} CPU {part}") for part in PARTS
        ]
        for side in rounds:
            found = ratios(rounds, measures[-1], side) if side != REFERENCE else []
            ratio = f"{statistics.median(found):.2f}" if found else ""
            parts = (_median(rounds, measure, side) for measure in measures)
            table.add_row(label if side == REFERENCE else "", side, *parts, ratio)
    return table


def _spread(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})" if found else "-"


def _median(rounds: Rounds, measure: Measure, side: str) -> str:
    values = [value for figures in rounds[side] if (value := measure.of(side, figures)) is not None]
    if not values:
        return "-"
    value = statistics.median(values)
    if 0 < value < _TWO_DIGITS_BELOW:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < _ONE_DIGIT_BELOW else f"{value:,.0f}"
