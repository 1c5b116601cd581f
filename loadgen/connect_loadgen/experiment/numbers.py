"""Figures over rounds, and how they are written: short enough to compare, exact enough to trust."""

import statistics
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

__all__ = [
    "Spread",
    "count",
    "figure",
    "ratio",
    "ratio_to",
    "ratio_with_spread",
    "share",
    "spread_of",
    "with_spread",
]


class Spread(BaseModel):
    """A figure over the rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: float
    low: float
    high: float


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Return median, lowest and highest; nothing if a value is missing or there is none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Spread(median=statistics.median(known), low=min(known), high=max(known))


def ratio_to(baseline: Sequence[float | None], values: Sequence[float | None]) -> Spread | None:
    """Return the spread of ``values`` divided by ``baseline``, round by round.

    Nothing comes of it if a value is missing or a baseline is 0. Values of the same position are of
    the same round.
    """
    return spread_of(
        [
            None if value is None or not base else value / base
            for base, value in zip(baseline, values, strict=True)
        ]
    )


def count(value: float) -> str:
    """Write a number of things: ``12,345``; half a thing only where a median has made one."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def figure(value: float) -> str:
    """Write a measured figure: three significant digits, or all of those before the point."""
    return _written(value, significant=3)


def ratio(value: float) -> str:
    """Write a ratio: two places (``0.92``, ``12.35``), or two significant digits when small."""
    return f"{value:,.2f}" if abs(value) >= 0.1 or not value else _written(value, significant=2)


def share(value: float) -> str:
    """Write a share of one as percent."""
    return f"{value:.0%}"


def with_spread(spread: Spread) -> str:
    """Write the median, then from lowest to highest if rounds differ."""
    if spread.low == spread.high:
        return figure(spread.median)
    return f"{figure(spread.median)} [{figure(spread.low)}, {figure(spread.high)}]"


def ratio_with_spread(value: Spread) -> str:
    """Write the median ratio, then from lowest to highest."""
    return f"{ratio(value.median)} [{ratio(value.low)}, {ratio(value.high)}]"


def _written(value: float, significant: int) -> str:
    if not value:
        return "0"
    # Exponent after rounding, so that 9.996 is 10.0 and not 10.00.
    exponent = int(f"{value:.{significant - 1}e}".partition("e")[2])
    return f"{value:,.{max(significant - 1 - exponent, 0)}f}"
