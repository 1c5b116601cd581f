"""Numbers left to chance: how large a payload is, how long a user thinks.

A distribution is written as one word:

    64               always this
    64,1024          each as likely as another
    64*3,1024        the first three times as likely
    uniform:10:500   anything between
    lognormal:200:1  median and sigma: most near the median, a few far above it
    exponential:0.5  mean
"""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Draws"]

_HELP = (
    "expected a number, or numbers as in 64,1024 or 64*3,1024*1, or uniform:LOW:HIGH,"
    " lognormal:MEDIAN:SIGMA or exponential:MEAN"
)

# Beyond it e to that power is no float any more; every limit is far below.
_LARGEST_EXPONENT = 700.0

_SHAPES: dict[str, tuple[int, Callable[..., Callable[[random.Random], float]]]] = {
    "uniform": (2, lambda low, high: lambda source: source.uniform(low, high)),
    "lognormal": (
        2,
        lambda median, sigma: (
            lambda source: median * math.exp(min(source.gauss(0.0, sigma), _LARGEST_EXPONENT))
        ),
    ),
    "exponential": (1, lambda mean: lambda source: source.expovariate(1.0) * mean),
}


@dataclass(frozen=True, slots=True)
class Draws:
    """A distribution of numbers from 0 to a limit; what a shape has beyond the limit counts as it.

    Either values with weights, or the name of a shape with its parameters.
    """

    highest: float
    """No number is larger."""
    values: tuple[float, ...]
    cumulative_weights: tuple[float, ...] = ()
    shape: str = ""

    @classmethod
    def parse(cls, text: str, limit: float) -> "Draws":
        """Read a distribution as it is written.

        Raises:
            ValueError: it is not written so, or a number is negative or above ``limit``.
        """
        shape, colon, rest = text.partition(":")
        if colon:
            count = _SHAPES[shape][0] if shape in _SHAPES else -1
            parameters = _numbers(rest.split(":"))
            if len(parameters) != count:
                raise ValueError(_HELP)
            if shape == "uniform" and parameters[0] > parameters[1]:
                raise ValueError("uniform:LOW:HIGH has the lower number first")
            return cls(limit, _within(parameters, limit), shape=shape)
        pairs = [part.partition("*") for part in text.split(",")]
        values = _within(_numbers([value for value, _, _ in pairs]), limit)
        weights = _numbers([weight if star else "1" for _, star, weight in pairs])
        if not 0 < sum(weights) < math.inf or min(weights) < 0:
            raise ValueError("weights are positive numbers")
        return cls(max(values), values, tuple(itertools.accumulate(weights)))

    def take(self, source: random.Random, count: int) -> list[float]:
        """Draw so many numbers."""
        if not self.shape:
            return source.choices(self.values, cum_weights=self.cumulative_weights, k=count)
        draw = _SHAPES[self.shape][1](*self.values)
        return [min(draw(source), self.highest) for _ in range(count)]


def _numbers(texts: list[str]) -> list[float]:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        raise ValueError(_HELP) from None
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(_HELP)
    return numbers


def _within(numbers: list[float], limit: float) -> tuple[float, ...]:
    if not all(0 <= number <= limit for number in numbers):
        raise ValueError(f"numbers go from 0 to {limit:g}")
    return tuple(numbers)
