"""When to look at a run whose end is uncertain: the looks that cost least, from how long its like took before.

A look costs :data:`LOOK_COST`; learning of the end late costs the lateness, in units of what is tolerated: a fifth of
the run's duration, or half a second. Between two looks nothing is learnt, so the best next look depends on the age
alone, and the least expected cost from each age on is found from the longest age backwards. (Barlow, Hunter and
Proschan, "Optimum checking procedures", 1963; here by dynamic programming over a grid of ages.)

What took 0.2, 2 or 20 s is thus looked at when the quick ones should be over, then at the slow ones' end, and not
between: a run older than most belongs to the slow ones. Where nothing is known, or a run is older than all that came
before, a prior with a heavy tail remains, and looks lie apart by a share of the age.
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

# A run's end is shown a moment after it, and no two runs of one length are alike to the millisecond.
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
    """From each age on, the age of the next look; ``runs`` is how many runs it was learnt from.

    Beyond the last age nothing is planned, and looks lie as far apart as hints may.
    """

    ages_s: tuple[float, ...]
    next_poll_ages_s: tuple[float, ...]
    sample_size: int = 0

    def next_delay_s(self, age_s: float) -> float:
        """Answer in how many seconds to look at a run of this age that is not over, within the bounds of a hint."""
        if age_s >= self.ages_s[-1]:
            return POLL_DELAY_MAX_S
        place = bisect_right(self.ages_s, max(age_s, 0.0)) - 1
        return min(max(self.next_poll_ages_s[place] - age_s, POLL_DELAY_MIN_S), POLL_DELAY_MAX_S)


@dataclass(frozen=True, slots=True)
class _Bin:
    """The runs that end between two ages: their weight, and their mean duration."""

    weight: float
    mean_s: float

    @property
    def lateness_cost_per_s(self) -> float:
        """What a second of lateness costs for all of them together."""
        return self.weight / max(TOLERATED_LATENESS_S, TOLERATED_LATENESS_SHARE * self.mean_s)


def build_schedule(durations_s: Iterable[float]) -> PollSchedule:
    """Answer the timetable for runs that took ``durations_s`` before, each one counting alike."""
    seen = sorted(duration for duration in durations_s if duration >= 0)
    ages = _age_grid_s(seen)
    bins = list(_bins(ages, seen))
    beyond = sum(duration > ages[-1] for duration in seen) + _prior_survival(ages[-1])
    return PollSchedule(tuple(ages), tuple(_best_next_poll_ages_s(ages, bins, beyond)), len(seen))


def _best_next_poll_ages_s(ages: Sequence[float], bins: Sequence[_Bin], beyond: float) -> list[float]:
    """The best next look from each age, found from the last age backwards.

    ``prices`` and ``moments`` are sums up to each age, so that what the lateness of all bins between two ages costs
    is one subtraction; ``costs`` is not divided by the weight of those that are left, which is the same for all looks.
    """
    prices = list(accumulate((one.lateness_cost_per_s for one in bins), initial=0.0))
    moments = list(accumulate((one.lateness_cost_per_s * one.mean_s for one in bins), initial=0.0))
    left = list(accumulate((one.weight for one in reversed(bins)), initial=beyond))[::-1]
    last = len(ages) - 1
    costs = [0.0] * (last + 1)
    looks = [age + POLL_DELAY_MAX_S for age in ages]
    for now in range(last - 1, -1, -1):
        best = None
        for then in range(now + 1, last + 1):
            gap = ages[then] - ages[now]
            if gap < POLL_DELAY_MIN_S and then < last:
                continue
            if gap > POLL_DELAY_MAX_S and best is not None:
                break
            late = ages[then] * (prices[then] - prices[now]) - (moments[then] - moments[now])
            if best is None or late + costs[then] < best:
                best, looks[now] = late + costs[then], ages[then]
            elif late > best:
                break  # later ones are later still
        costs[now] = POLL_COST * left[now] + (best or 0.0)
    return looks


def _age_grid_s(durations_s: Sequence[float]) -> list[float]:
    """The ages between which looks are chosen: finely where runs have ended, coarsely elsewhere."""
    fine = {_round_up_to_grid(duration) for duration in durations_s if duration < HORIZON_S}
    return sorted({0.0, *fine, *_coarse_grid_s()})


def _round_up_to_grid(duration_s: float) -> float:
    """The age at which a run of this duration is certainly seen to be over, on a grid that joins those nearly alike."""
    age = POLL_DELAY_MIN_S
    shown_s = duration_s * _MARGIN_FACTOR + _MARGIN_S
    while age < shown_s:
        age *= _FINE_GRID_FACTOR
    return age


def _coarse_grid_s() -> Iterator[float]:
    age = POLL_DELAY_MIN_S
    while age < HORIZON_S:
        yield age
        age = min(age * _COARSE_GRID_FACTOR, age + _COARSE_GRID_STEP_MAX_S)


def _bins(ages: Sequence[float], durations_s: Sequence[float]) -> Iterator[_Bin]:
    first = 0
    for since, until in pairwise(ages):
        past = first
        while past < len(durations_s) and durations_s[past] * _MARGIN_FACTOR + _MARGIN_S <= until:
            past += 1
        prior = _prior_survival(since) - _prior_survival(until)
        weight = prior + past - first
        yield _Bin(weight, (prior * (since + until) / 2 + sum(durations_s[first:past])) / weight)
        first = past


def _prior_survival(age_s: float) -> float:
    """How many runs count as longer than this where nothing is known: a Lomax tail."""
    return float(_PRIOR_RUNS * (1 + age_s / _PRIOR_SCALE_S) ** -_PRIOR_TAIL_INDEX)
