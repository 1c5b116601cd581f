"""The rules by which a claim is judged, on nothing but the claimed and the measured figures.

A claim is a range. A measured figure is a median with the lowest and highest of its rounds.

- ``holds``: the median reaches the claim's weaker end, and so does the worst round.
- ``partly``: the median gets at least half-way there, or reaches it while some round does not.
- ``does not hold``: all else.

For a change (a ratio to ``full``) half-way is meant as the change: of a claimed -80 %, -40 %. For a
size or rate that is claimed as a range without a direction, ``holds`` means that the median lies
within it, and ``partly`` that it lies within a factor of two of it.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from connect_loadgen.experiment.results import Spread

__all__ = ["AtLeast", "Between", "Expectation", "Less", "More", "Verdict"]

# Of the way from no change to the claimed one.
_HALF_WAY = 0.5
# How far outside a claimed range still counts as having been near it.
_NEAR = 2.0


class Verdict(Enum):
    """How a claim came out."""

    HOLDS = "holds"
    PARTLY = "partly"
    DOES_NOT_HOLD = "does not hold"
    NO_VERDICT = "no verdict"
    """The generator was the limit in every round."""
    LEFT_OUT = "left out"
    """The command ended before it was measured."""
    NOT_MEASURABLE = "cannot be measured here"


class Expectation(Protocol):
    """What was claimed of a figure."""

    def judge(self, measured: Spread) -> Verdict:
        """Return the verdict on a measured figure."""

    def __str__(self) -> str:
        """Return the claim's number as a reader writes it."""


def _judge_change(claimed: float, median: float, worst: float) -> Verdict:
    """Judge a change, all three counted positive in the direction that was claimed."""
    if median >= claimed and worst >= claimed:
        return Verdict.HOLDS
    if median >= claimed * _HALF_WAY:
        return Verdict.PARTLY
    return Verdict.DOES_NOT_HOLD


@dataclass(frozen=True, slots=True)
class Less:
    """A ratio to ``full`` that was to fall by ``weakest`` to ``strongest`` (shares, 0 to 1)."""

    weakest: float
    strongest: float | None = None

    def judge(self, measured: Spread) -> Verdict:
        """See ``Expectation``; ``measured`` is the ratio, 1 for no change."""
        return _judge_change(self.weakest, 1 - measured.median, 1 - measured.high)

    def __str__(self) -> str:
        if self.strongest is None:
            return f"-{self.weakest:.0%} or more"
        return f"-{self.weakest:.0%} to -{self.strongest:.0%}"


@dataclass(frozen=True, slots=True)
class More:
    """A ratio to ``full`` that was to grow by ``weakest`` to ``strongest`` (2 is +200 %)."""

    weakest: float
    strongest: float | None = None

    def judge(self, measured: Spread) -> Verdict:
        """See ``Expectation``; ``measured`` is the ratio, 1 for no change."""
        return _judge_change(self.weakest, measured.median - 1, measured.low - 1)

    def __str__(self) -> str:
        if self.strongest is None:
            return f"+{self.weakest:.0%} or more"
        return f"+{self.weakest:.0%} to +{self.strongest:.0%}"


@dataclass(frozen=True, slots=True)
class Between:
    """A size or a rate that was to lie between two values."""

    low: float
    high: float
    unit: str

    def judge(self, measured: Spread) -> Verdict:
        """See ``Expectation``."""
        if self.low <= measured.median <= self.high:
            return Verdict.HOLDS
        if self.low / _NEAR <= measured.median <= self.high * _NEAR:
            return Verdict.PARTLY
        return Verdict.DOES_NOT_HOLD

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:,.0f} {self.unit}"
        return f"{self.low:,.0f} to {self.high:,.0f} {self.unit}"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A share that was to be at least so large."""

    share: float

    def judge(self, measured: Spread) -> Verdict:
        """See ``Expectation``."""
        return _judge_change(self.share, measured.median, measured.low)

    def __str__(self) -> str:
        return f"{self.share:.0%} or more"
