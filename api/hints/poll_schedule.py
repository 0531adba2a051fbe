"""Poll schedule: the optimal poll times of a run whose end is uncertain, from the durations of earlier runs.

A poll costs :data:`POLL_COST`. Learning of the end late costs the lateness, in units of the tolerated lateness: a fifth
of the run's duration, or half a second. Between two polls nothing is learned, so the best next poll depends only on the
age of the run, and the least expected cost from each age on is computed from the longest age backwards. (Barlow, Hunter
and Proschan, "Optimum checking procedures", 1963; here by dynamic programming over a grid of ages.)

So if runs took 0.2, 2 or 20 s, a run is polled when the quick ones should be done, then when the slow ones should be,
and not between: a run older than most is a slow one. If no durations are known, or a run is older than all earlier
ones, a prior with a heavy tail (Lomax) remains, and the delay between polls is a share of the age.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

POLL_DELAY_MIN_S: Final = 0.25
POLL_DELAY_MAX_S: Final = 30.0
POLL_COST: Final = 0.25
TOLERATED_LATENESS_SHARE: Final = 0.2
TOLERATED_LATENESS_S: Final = 0.5
HORIZON_S: Final = 600.0

# The end of a run is visible a moment after it, and runs of one length differ by some milliseconds.
_MARGIN_FACTOR: Final = 1.02
_MARGIN_S: Final = 0.02
_FINE_GRID_FACTOR: Final = 1.03
_COARSE_GRID_FACTOR: Final = 1.2
_COARSE_GRID_STEP_MAX_S: Final = 25.0
_PRIOR_RUNS: Final = 1.0
_PRIOR_SCALE_S: Final = 0.5
_PRIOR_TAIL_INDEX: Final = 0.5


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """For each age of a run, the age at its next poll; ``sample_size`` is the number of runs it was learned from.

    Beyond the last age the delay is the longest that a hint may have.
    """

    ages_s: tuple[float, ...]
    next_poll_ages_s: tuple[float, ...]
    sample_size: int = 0

    def next_delay_s(self, age_s: float) -> float:
        """Return in how many seconds to poll a run of this age that is not done, within the bounds of a hint."""
        if age_s >= self.ages_s[-1]:
            return POLL_DELAY_MAX_S
        index = bisect_right(self.ages_s, max(age_s, 0.0)) - 1
        return min(max(self.next_poll_ages_s[index] - age_s, POLL_DELAY_MIN_S), POLL_DELAY_MAX_S)


@dataclass(frozen=True, slots=True)
class _Bin:
    """The runs that end between two ages: their weight and their mean duration."""

    weight: float
    mean_s: float

    @property
    def lateness_cost_per_s(self) -> float:
        """The cost of one second of lateness for all of them together."""
        return self.weight / max(TOLERATED_LATENESS_S, TOLERATED_LATENESS_SHARE * self.mean_s)


def build_schedule(durations_s: Iterable[float]) -> PollSchedule:
    """Return the poll schedule for runs that took ``durations_s`` before; each has the same weight."""
    sorted_s = sorted(duration for duration in durations_s if duration >= 0)
    ages = _age_grid_s(sorted_s)
    bins = list(_make_bins(ages, sorted_s))
    weight_beyond = sum(duration > ages[-1] for duration in sorted_s) + _prior_survival(ages[-1])
    return PollSchedule(tuple(ages), tuple(_best_next_poll_ages_s(ages, bins, weight_beyond)), len(sorted_s))


def _best_next_poll_ages_s(ages: Sequence[float], bins: Sequence[_Bin], weight_beyond: float) -> list[float]:
    """Return the age at the best next poll for each age, computed from the last age backwards.

    ``cost_rates`` and ``cost_moments`` are prefix sums up to each age, so that the lateness cost of all bins between
    two ages is one subtraction. ``costs`` is not divided by the weight of the runs that are left, which is the same for
    each candidate of the next poll.
    """
    cost_rates = list(accumulate((each_bin.lateness_cost_per_s for each_bin in bins), initial=0.0))
    cost_moments = list(accumulate((each_bin.lateness_cost_per_s * each_bin.mean_s for each_bin in bins), initial=0.0))
    weights_left = list(accumulate((each_bin.weight for each_bin in reversed(bins)), initial=weight_beyond))[::-1]
    last = len(ages) - 1
    costs = [0.0] * (last + 1)
    next_poll_ages = [age + POLL_DELAY_MAX_S for age in ages]
    for start in range(last - 1, -1, -1):
        best = None
        for end in range(start + 1, last + 1):
            gap = ages[end] - ages[start]
            if gap < POLL_DELAY_MIN_S and end < last:
                continue
            if gap > POLL_DELAY_MAX_S and best is not None:
                break
            lateness_cost = ages[end] * (cost_rates[end] - cost_rates[start]) - (
                cost_moments[end] - cost_moments[start]
            )
            if best is None or lateness_cost + costs[end] < best:
                best, next_poll_ages[start] = lateness_cost + costs[end], ages[end]
            elif lateness_cost > best:
                break  # at later ages the lateness only grows
        costs[start] = POLL_COST * weights_left[start] + (best or 0.0)
    return next_poll_ages


def _age_grid_s(durations_s: Sequence[float]) -> list[float]:
    """Return the ages from which poll times are chosen: a fine grid near known durations, coarse elsewhere."""
    fine = {_round_up_to_grid(duration) for duration in durations_s if duration < HORIZON_S}
    return sorted({0.0, *fine, *_coarse_grid_s()})


def _round_up_to_grid(duration_s: float) -> float:
    """Return the age at which the end of such a run is surely visible, on a grid that merges similar durations."""
    age = POLL_DELAY_MIN_S
    visible_s = duration_s * _MARGIN_FACTOR + _MARGIN_S
    while age < visible_s:
        age *= _FINE_GRID_FACTOR
    return age


def _coarse_grid_s() -> Iterator[float]:
    age = POLL_DELAY_MIN_S
    while age < HORIZON_S:
        yield age
        age = min(age * _COARSE_GRID_FACTOR, age + _COARSE_GRID_STEP_MAX_S)


def _make_bins(ages: Sequence[float], durations_s: Sequence[float]) -> Iterator[_Bin]:
    first = 0
    for since, until in pairwise(ages):
        end = first
        while end < len(durations_s) and durations_s[end] * _MARGIN_FACTOR + _MARGIN_S <= until:
            end += 1
        prior = _prior_survival(since) - _prior_survival(until)
        weight = prior + end - first
        yield _Bin(weight, (prior * (since + until) / 2 + sum(durations_s[first:end])) / weight)
        first = end


def _prior_survival(age_s: float) -> float:
    """Return the prior weight of runs that are longer than this: the survival function of a Lomax distribution."""
    return float(_PRIOR_RUNS * (1 + age_s / _PRIOR_SCALE_S) ** -_PRIOR_TAIL_INDEX)
