"""Whether a figure grows: the slope of Theil and Sen, which a third of wild samples can't move.

The slope is the median of the slopes between all pairs of samples (Sen 1968); its interval holds
the true one in 95 of 100 cases, by the normal approximation of Kendall's statistic (ibid., 2).

That holds for samples that know nothing of each other. Those of a machine do: a slow minute is slow
throughout. So many samples say no more than fewer would, and the statistic's variance is larger by
as much: by the autocorrelation of what is left without the trend, as far as that is significant
(Hamed and Rao 1998; Yue and Wang 2004).
"""

import math
import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

__all__ = ["Trend", "trend_of"]

_Z_95 = 1.96
_HOUR = 3_600.0
# More pairs say nothing new, and take their time.
_MOST_SAMPLES = 720
_FEWEST_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Trend:
    """Growth in per cent of the median an hour: the estimate, and its interval."""

    per_hour: float
    low: float
    high: float
    seconds: float
    """What it rests on."""

    @property
    def within(self) -> float:
        """Per cent that it grew by in the time it rests on."""
        return self.per_hour * self.seconds / _HOUR


def trend_of(samples: Sequence[tuple[float, float]]) -> Trend | None:
    """Return the trend of (seconds, value) pairs in order of time; nothing for too few of them."""
    step = math.ceil(len(samples) / _MOST_SAMPLES) or 1
    taken = samples[::step]
    count = len(taken)
    if count < _FEWEST_SAMPLES:
        return None
    middle = statistics.median(value for _, value in taken)
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(taken)
        for later in taken[index + 1 :]
        if later[0] > earlier[0]
    )
    if not slopes or not middle:
        return None
    slope = statistics.median(slopes)
    repeated = _repetition([value - slope * at for at, value in taken])
    variance = repeated * count * (count - 1) * (2 * count + 5) / 18
    half_width = _Z_95 * math.sqrt(variance) / 2
    low = max(round(len(slopes) / 2 - half_width), 0)
    high = min(round(len(slopes) / 2 + half_width), len(slopes) - 1)
    scale = 100 * _HOUR / abs(middle)
    return Trend(
        per_hour=slope * scale,
        low=slopes[low] * scale,
        high=slopes[high] * scale,
        seconds=taken[-1][0] - taken[0][0],
    )


def _repetition(values: Sequence[float]) -> float:
    """Return how many of these say as much as one would that knows nothing of the others."""
    ranks = _ranks(values)
    count, middle = len(ranks), (len(ranks) - 1) / 2
    apart = [rank - middle for rank in ranks]
    whole = sum(each * each for each in apart)
    repeated = 1.0
    for lag in range(1, count // 2):
        alike = sum(map(operator.mul, apart[lag:], apart)) / whole if whole else 0.0
        if alike < _Z_95 / math.sqrt(count):
            break
        repeated += 2 * (1 - lag / count) * alike
    return repeated


def _ranks(values: Sequence[float]) -> list[float]:
    """Return each value's place in their order, from 0; equal ones share theirs."""
    ranks = [0.0] * len(values)
    place = 0
    for _, equals in groupby(
        sorted(range(len(values)), key=values.__getitem__), values.__getitem__
    ):
        indexes = list(equals)
        for index in indexes:
            ranks[index] = place + (len(indexes) - 1) / 2
        place += len(indexes)
    return ranks
