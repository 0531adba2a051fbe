"""Robust statistics of short and long series: slope, trend test and outliers that single wrong values hardly move.

Series of up to 200 points are compared pair by pair; longer ones by the pairs that lie half the series apart, so that
10,000 points take milliseconds. Both ways are named in the results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median
from typing import Final

ALL_PAIRS_MAX: Final = 200
TREND_POINTS_MIN: Final = 4
ALL_PAIRS: Final = "Theil-Sen slope and Mann-Kendall test over all pairs"
HALF_PAIRS: Final = "Theil slope and Cox-Stuart test over the pairs half the series apart"
# The factors that make both deviations comparable with a standard deviation (Iglewicz and Hoaglin, 1993).
_MAD_FACTOR: Final = 1.482602
_MEAN_DEVIATION_FACTOR: Final = 1.253314

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Trend:
    """The trend of a series: the median slope (y per unit of x) and how sure its direction is.

    ``confidence`` is 1 minus the two-sided p-value of the trend test: how rarely an order like this comes about if
    there is no trend. Both are None if they cannot be computed: too few points, or all at one x.
    """

    slope: float | None
    confidence: float | None
    method: str


def trend_of(points: Points) -> Trend:
    """Return the trend of ``points``, which are (x, y) ordered by x."""
    method = ALL_PAIRS if len(points) <= ALL_PAIRS_MAX else HALF_PAIRS
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in _pairs(points) if x2 > x1]
    if len(points) < TREND_POINTS_MIN or not slopes:
        return Trend(None, None, method)
    confidence = _mann_kendall(points) if method == ALL_PAIRS else _cox_stuart(slopes)
    return Trend(median(slopes), confidence, method)


def _pairs(points: Points) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    if len(points) <= ALL_PAIRS_MAX:
        yield from ((first, second) for at, first in enumerate(points) for second in points[at + 1 :])
    else:
        yield from zip(points, points[(len(points) + 1) // 2 :], strict=False)


def _mann_kendall(points: Points) -> float:
    """Return 1 - p by the normal approximation with continuity correction, for ties in x and in y (Kendall)."""
    n = len(points)
    score = sum(_sign(y2 - y1) * _sign(x2 - x1) for (x1, y1), (x2, y2) in _pairs(points))
    x_ties, y_ties = (list(Counter(values).values()) for values in zip(*points, strict=True))
    variance = (
        n * (n - 1) * (2 * n + 5)
        - sum(t * (t - 1) * (2 * t + 5) for t in x_ties)
        - sum(t * (t - 1) * (2 * t + 5) for t in y_ties)
    ) / 18
    variance += sum(t * (t - 1) for t in x_ties) * sum(t * (t - 1) for t in y_ties) / (2 * n * (n - 1))
    variance += (
        sum(t * (t - 1) * (t - 2) for t in x_ties)
        * sum(t * (t - 1) * (t - 2) for t in y_ties)
        / (9 * n * (n - 1) * (n - 2))
    )
    return _confidence_of(score, variance)


def _cox_stuart(slopes: Sequence[float]) -> float:
    signs = [_sign(slope) for slope in slopes if slope]
    return _confidence_of(sum(signs), len(signs))


def _confidence_of(score: int, variance: float) -> float:
    if not score or variance <= 0:
        return 0.0
    z = max(abs(score) - 1, 0) / variance**0.5
    return 2 * NormalDist().cdf(z) - 1


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


@dataclass(frozen=True, slots=True)
class Spread:
    """The centre of values and their robust spread, comparable with a standard deviation; ``spread`` may be 0."""

    median: float
    spread: float
    method: str

    def deviations_of(self, value: float) -> float | None:
        """Return the modified z-score: how many spreads ``value`` lies above the median; None if the spread is 0."""
        return (value - self.median) / self.spread if self.spread else None


def spread_of(values: Sequence[float]) -> Spread:
    """Return the median and the median absolute deviation of ``values``, which must not be empty.

    If more than half of the values are equal, the median deviation is 0 and the mean deviation takes its place.
    """
    centre = median(values)
    deviations = [abs(value - centre) for value in values]
    if spread := median(deviations) * _MAD_FACTOR:
        return Spread(centre, spread, "median absolute deviation")
    return Spread(centre, fmean(deviations) * _MEAN_DEVIATION_FACTOR, "mean absolute deviation")
