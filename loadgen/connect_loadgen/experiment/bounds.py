"""Bounds, and the verdicts on figures held against them; rules on figures and nothing else.

A figure is a median with the lowest and highest of its rounds. A bound is one of these:

- ``median``: the median lies within it.
- ``every round``: broken only if the median lies beyond it and every round shows the same direction
  (a ratio above 1, a growth above 0), so that noise breaks nothing.
- ``claim``: what the audit claims. A change ``holds`` if the median reaches the weaker end and so
  does the worst round; ``partly`` if the median gets half-way there, or a round does not. A range
  ``holds`` if the median lies within it, ``partly`` if within a factor of two of it.
- ``difference``: a ratio is better or worse if its median is material and every round shows it.
"""

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from connect_loadgen.experiment.numbers import Spread, figure

__all__ = ["MATERIAL", "Bound", "Rule", "Verdict"]

Rule = Literal["median", "every round", "claim", "difference"]

MATERIAL = 0.03
"""A median nearer to 1 than this is no difference to act on."""

# Of the way from no change to the claimed one.
_HALF_WAY = 0.5
# How far outside a claimed range still counts as near it.
_NEAR = 2.0


class Verdict(StrEnum):
    """How a figure stands to its bound."""

    HOLDS = "holds"
    PARTLY = "partly"
    DOES_NOT_HOLD = "does not hold"
    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference"
    NO_VERDICT = "no verdict"
    """The generator was the limit in every round, or the run did not show it."""
    LEFT_OUT = "left out"
    """The command ended before it was measured."""
    NOT_MEASURED = "not measured"
    NOT_MEASURABLE = "cannot be measured here"
    NO_BOUND = ""
    """For orientation."""


class Bound(BaseModel):
    """What a figure, or its ratio to what it is compared with, has to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float | None = None
    high: float | None = None
    of: Literal["figure", "ratio"] = "figure"
    rule: Rule = "median"
    unit: str = ""
    more_is_better: bool | None = None
    """For differences only."""

    @classmethod
    def at_least(cls, low: float, of: Literal["figure", "ratio"] = "figure") -> Self:
        """Return the bound of a median that must be so large."""
        return cls(low=low, of=of)

    @classmethod
    def at_most(
        cls, high: float, of: Literal["figure", "ratio"] = "figure", rule: Rule = "median"
    ) -> Self:
        """Return the bound of a median that must be no larger."""
        return cls(high=high, of=of, rule=rule)

    @classmethod
    def less(cls, weakest: float, strongest: float | None = None) -> Self:
        """Return the claim that a ratio falls by such shares, 0 to 1."""
        low = None if strongest is None else 1 - strongest
        return cls(low=low, high=1 - weakest, of="ratio", rule="claim")

    @classmethod
    def more(cls, weakest: float, strongest: float | None = None) -> Self:
        """Return the claim that a ratio grows by such shares (2 is +200 %)."""
        high = None if strongest is None else 1 + strongest
        return cls(low=1 + weakest, high=high, of="ratio", rule="claim")

    @classmethod
    def between(cls, low: float, high: float, unit: str) -> Self:
        """Return the claim that a size or rate lies in a range."""
        return cls(low=low, high=high, rule="claim", unit=unit)

    @classmethod
    def share(cls, low: float) -> Self:
        """Return the claim that a share is at least so large."""
        return cls(low=low, rule="claim", unit="share")

    @classmethod
    def difference(cls, *, more_is_better: bool) -> Self:
        """Return what tells a better ratio from a worse one."""
        return cls(of="ratio", rule="difference", more_is_better=more_is_better)

    @property
    def falls(self) -> bool:
        """Whether less is what the bound asks for."""
        if self.more_is_better is not None:
            return not self.more_is_better
        return self.low is None or (self.of == "ratio" and (self.high or 1) < 1)

    def judge(self, measured: Spread) -> Verdict:
        """Return the verdict on a figure, or on a ratio (1: no change)."""
        median, low, high = measured.median, measured.low, measured.high
        match self.rule:
            case "difference":
                if abs(median - 1) < MATERIAL or low <= 1 <= high:
                    return Verdict.SAME
                return Verdict.BETTER if (low > 1) == self.more_is_better else Verdict.WORSE
            case "claim":
                return self._judge_claim(measured)
            case "every round":
                none = 1 if self.of == "ratio" else 0
                is_broken = self.high is not None and median > self.high and low > none
                return Verdict.DOES_NOT_HOLD if is_broken else Verdict.HOLDS
            case _:
                is_within = (self.low is None or median >= self.low) and (
                    self.high is None or median <= self.high
                )
                return Verdict.HOLDS if is_within else Verdict.DOES_NOT_HOLD

    def _judge_claim(self, measured: Spread) -> Verdict:
        median = measured.median
        if self.of == "figure" and self.low is not None and self.high is not None:
            if self.low <= median <= self.high:
                return Verdict.HOLDS
            is_near = self.low / _NEAR <= median <= self.high * _NEAR
            return Verdict.PARTLY if is_near else Verdict.DOES_NOT_HOLD
        none = 1 if self.of == "ratio" else 0
        # All counted positive in the direction of the claim.
        if self.falls:
            claimed, reached, worst = none - (self.high or 0), none - median, none - measured.high
        else:
            claimed, reached, worst = (self.low or 0) - none, median - none, measured.low - none
        if reached >= claimed and worst >= claimed:
            return Verdict.HOLDS
        return Verdict.PARTLY if reached >= claimed * _HALF_WAY else Verdict.DOES_NOT_HOLD

    def __str__(self) -> str:
        """Return the bound as it stands in a table."""
        if self.rule == "difference":
            return ""
        if self.rule == "claim":
            return self._claim()
        prefix = "ratio " if self.of == "ratio" else ""
        if self.high == 0 and self.low is None:
            return "none"
        return prefix + " and ".join(
            f"{sign} {figure(edge)}"
            for sign, edge in ((">=", self.low), ("<=", self.high))
            if edge is not None
        )

    def _claim(self) -> str:
        if self.of == "ratio":
            weak, strong = (self.high, self.low) if self.falls else (self.low, self.high)
            words = f"{(weak or 0) - 1:+.0%}"
            return f"{words} or more" if strong is None else f"{words} to {strong - 1:+.0%}"
        if self.high is None or self.low is None:
            return f"{self.low:.0%} or more"
        if self.low == self.high:
            return f"{self.low:,.0f} {self.unit}"
        return f"{self.low:,.0f} to {self.high:,.0f} {self.unit}"
