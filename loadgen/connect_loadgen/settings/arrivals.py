"""When operations are due in an open loop: a rate over time, evenly spaced or by chance.

A rate is written as one word, which says how it goes over the measured time:

    1000             constant
    100..1000        a ramp, straight from one rate to the other
    100,200,400      steps, each as long as another
    100^1000         a spike: the higher rate for the middle tenth of the time
    poisson:1000     any of these, but each arrival by chance, as of users who don't know each other
    batch:64:640     any of these, but 64 arrivals at a time, as from a gateway that sends frames

A long constant rate is a soak. The due times follow from the rate alone, never from the answers.
"""

import math
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = ["Arrivals", "Schedule"]

SECOND = 1_000_000_000

HIGHEST_RATE = 1_000_000.0

_POISSON = "poisson:"
_SPIKE_SHARE = 0.1
_NEVER = sys.maxsize


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of the time in which the rate goes straight from one value to another."""

    share: float
    """Of the whole time, 0 to 1."""
    begin: float
    end: float

    @property
    def mean(self) -> float:
        return (self.begin + self.end) / 2


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A rate over time, operations per second."""

    segments: tuple[_Segment, ...]
    by_chance: bool = False
    """Whether they come as a Poisson process does, and not evenly."""
    batch: int = 1
    """How many come at the same time."""

    @classmethod
    def parse(cls, text: str) -> "Arrivals":
        """Read a rate as it is written.

        Raises:
            ValueError: it is not written so, or nothing would ever come.
        """
        shape = text.removeprefix(_POISSON)
        batch = 1
        if found := re.fullmatch(r"batch:([1-9]\d{0,3}):(.*)", shape):
            batch, shape = int(found[1]), found[2]
        if ".." in shape:
            begin, end = _rates(shape, "..", 2)
            segments = [_Segment(1.0, begin, end)]
        elif "^" in shape:
            base, spike = _rates(shape, "^", 2)
            around = (1 - _SPIKE_SHARE) / 2
            segments = [
                _Segment(around, base, base),
                _Segment(_SPIKE_SHARE, spike, spike),
                _Segment(around, base, base),
            ]
        else:
            steps = _rates(shape, ",", None)
            segments = [_Segment(1 / len(steps), rate, rate) for rate in steps]
        if not any(segment.mean for segment in segments):
            raise ValueError("nothing is ever sent at a rate of 0")
        return cls(tuple(segments), by_chance=text.startswith(_POISSON), batch=batch)

    @property
    def mean_rate(self) -> float:
        """Operations per second, over the whole time."""
        return sum(segment.share * segment.mean for segment in self.segments)

    def at_its_beginning(self) -> "Arrivals":
        """Return the rate that it begins with, held: what a warm-up is done at."""
        rate = self.segments[0].begin
        return replace(self, segments=(_Segment(1.0, rate, rate),))

    def divided(self, parts: int) -> "Arrivals":
        """Return one of so many equal parts."""
        return replace(
            self,
            segments=tuple(
                _Segment(segment.share, segment.begin / parts, segment.end / parts)
                for segment in self.segments
            ),
        )

    def times(self, seconds: float, source: random.Random, offset: float) -> Iterator[int]:
        """Yield all due times, in nanoseconds from the beginning, in order.

        Args:
            seconds: the whole time.
            source: of what is left to chance.
            offset: 0 to 1: how far into the first gap the first one comes, if they come evenly.
        """
        due = 0
        for number, arrival in enumerate(self._arrivals(seconds, source, offset)):
            if number % self.batch == 0:
                due = arrival
            yield due

    def _arrivals(self, seconds: float, source: random.Random, offset: float) -> Iterator[int]:
        # The n-th arrival is due when the integral of the rate reaches n; by chance, when it
        # reaches the sum of n exponential gaps of mean 1.
        due = source.expovariate(1.0) if self.by_chance else offset
        passed, begins_at = 0.0, 0.0
        for segment in self.segments:
            length = segment.share * seconds
            arrivals = segment.mean * length
            slope = (segment.end - segment.begin) / length
            while due < passed + arrivals:
                here = due - passed
                # The root of begin * t + slope / 2 * t^2 = here, in the form that stays exact for
                # a slope of 0.
                speed = segment.begin + math.sqrt(max(segment.begin**2 + 2 * slope * here, 0.0))
                reached = 2 * here * SECOND / speed if here else 0.0
                yield int(begins_at * SECOND + reached)
                due += source.expovariate(1.0) if self.by_chance else 1
            passed += arrivals
            begins_at += length


class Schedule:
    """The due times of one phase, to be taken as they come."""

    def __init__(self, times: Iterator[int], begins_at: int) -> None:
        """Begin at ``begins_at``, which the times count from; both in nanoseconds."""
        self._times = times
        self._begins_at = begins_at
        self.next_at = self._next()

    def due(self, now: int) -> Iterator[int]:
        """Take and yield the due times that have come."""
        while (due_at := self.next_at) <= now:
            self.next_at = self._next()
            yield due_at

    def _next(self) -> int:
        passed = next(self._times, None)
        return _NEVER if passed is None else self._begins_at + passed


def _rates(text: str, separator: str, count: int | None) -> list[float]:
    parts = text.split(separator)
    try:
        rates = [float(part) for part in parts]
    except ValueError:
        rates = []
    if (
        not rates
        or (count is not None and len(rates) != count)
        or not all(0 <= rate <= HIGHEST_RATE for rate in rates)
    ):
        raise ValueError(
            "expected operations per second, up to 1,000,000: 100, or 10..100 (ramp), 10,20,30"
            " (steps), 10^100 (spike), each with poisson:, batch:64: or both before it or not"
        )
    return rates
