"""Counting how values are spread, cheaply enough for every message.

The rooms count for themselves, with plain integers and these; ``telemetry`` publishes both
when it is asked. One thread at a time adds to a distribution; any thread may read it, and finds
every value either counted or not.
"""

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["SECONDS", "SIZES", "Distribution"]

SECONDS = (
    *(50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3),
    *(1.0, 2.5, 5.0),
)
"""Bounds for durations: from a fast operation to one that nobody waits for any more."""

SIZES = tuple(1 << power for power in range(13))
"""Bounds for how many at once: 1 to 4,096, the capacity of a mailbox."""


class Distribution:
    """How many values lie between fixed bounds, and their sum.

    Attributes:
        bounds: ascending; a value belongs to the first bound that is not below it.
        counts: one count for each bound, and one for what lies beyond the last.
        total: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """Begin empty."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, once or more often."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def include(self, other: "Distribution") -> None:
        """Count all that another one with the same bounds has counted."""
        self.counts = [
            ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.total += other.total

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(self.counts)

    def __repr__(self) -> str:
        return f"Distribution({self.count} values, total {self.total:g})"
