"""Groups scores into one series for each student and subject, and judges their trend and outliers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median
from typing import Any, Final

from worker.agent_errors import InvalidInputError
from worker.agent_parts.iso_dates import parse_date
from worker.agent_parts.robust_statistics import TREND_POINTS_MIN, Trend, spread_of, trend_of

MAX_DEFAULT: Final = 100
CONFIDENCE_MIN: Final = 0.9
OUTLIER_POINTS_MIN: Final = 5
RECENT: Final = 3
SERIES_MAX: Final = 2_000
"""With more, an output of a kilobyte for each could pass the limit of 4 MiB."""


@dataclass(frozen=True, slots=True)
class Score:
    """One score as a percentage of its maximum; ``number`` is its position in the input."""

    number: int
    day: date
    percent: float
    score: float
    maximum: float


@dataclass(frozen=True, slots=True)
class ScoreSeries:
    """The scores of one student in one subject, in the order of their dates; None where the input names none."""

    student: str | None
    subject: str | None
    scores: tuple[Score, ...]

    @property
    def percents(self) -> list[float]:
        """The percentages in the order of time."""
        return [score.percent for score in self.scores]

    def names(self) -> dict[str, str | None]:
        """Return ``{student, subject}``."""
        return {"student": self.student, "subject": self.subject}

    def trend(self) -> Trend:
        """Return the trend in percentage points a day."""
        return trend_of([(float(score.day.toordinal()), score.percent) for score in self.scores])


def group_scores(scores: Iterable[Mapping[str, Any]]) -> list[ScoreSeries]:
    """Return the series, sorted by student and subject.

    Raises InvalidInputError for a score above its maximum, and for more than 2,000 series.
    """
    groups: dict[tuple[str | None, str | None], list[Score]] = {}
    for number, entry in enumerate(scores):
        maximum = entry.get("max", MAX_DEFAULT)
        if entry["score"] > maximum:
            raise InvalidInputError(
                f"/scores/{number}: the score {entry['score']:g} is above its max, which is {maximum:g}"
                + ("" if "max" in entry else " because it names none")
            )
        day = parse_date(entry["date"], f"/scores/{number}/date")
        score = Score(number, day, 100 * entry["score"] / maximum, entry["score"], maximum)
        groups.setdefault((entry.get("student"), entry.get("subject")), []).append(score)
    if len(groups) > SERIES_MAX:
        raise InvalidInputError(
            f"/scores: {len(groups):,} pairs of student and subject; at most {SERIES_MAX:,} at once"
        )
    return [
        ScoreSeries(student, subject, tuple(sorted(group, key=lambda score: score.day)))
        for (student, subject), group in sorted(groups.items(), key=lambda item: tuple(name or "" for name in item[0]))
    ]


def direction_of(trend: Trend, percents: Sequence[float]) -> str:
    """Return ``rising`` or ``falling`` if the confidence reaches 0.9, ``flat`` if all are equal, else ``unclear``."""
    if len(percents) >= TREND_POINTS_MIN and min(percents) == max(percents):
        return "flat"
    if trend.slope and trend.confidence is not None and trend.confidence >= CONFIDENCE_MIN:
        return "rising" if trend.slope > 0 else "falling"
    return "unclear"


def find_outliers(
    series: ScoreSeries, threshold: float, difference_min: float
) -> list[tuple[Score, float, float, str]]:
    """Return the scores far from the median: ``(score, median, modified z-score, method)``.

    A score is one if it lies both ``threshold`` spreads and ``difference_min`` percentage points away.
    """
    if len(series.scores) < OUTLIER_POINTS_MIN:
        return []
    spread = spread_of(series.percents)
    found = []
    for score in series.scores:
        deviations = spread.deviations_of(score.percent)
        is_far = abs(score.percent - spread.median) >= difference_min
        if deviations is not None and is_far and abs(deviations) > threshold:
            found.append((score, spread.median, deviations, spread.method))
    return found


def recent_median(series: ScoreSeries) -> float:
    """Return the median of the last three percentages."""
    return median(series.percents[-RECENT:])
